//! Statuses of pods, made where they are needed: by backends and by tests.

use super::{Cause, ContainerState, Phase, PodSpec, PodStatus, Terminated};

impl PodStatus {
    /// The status of a pod with which nothing is wrong, and without a sidecar.
    pub fn new(phase: Phase, main: ContainerState) -> Self {
        PodStatus {
            phase,
            cause: Cause::default(),
            unschedulable: None,
            waits_for_room: false,
            disruption: None,
            deleted: false,
            main,
            sidecar: None,
        }
    }

    /// A pod whose container waits.
    pub fn waiting(reason: impl Into<String>, message: impl Into<String>) -> Self {
        PodStatus::new(Phase::Pending, ContainerState::Waiting(Cause::new(reason, message)))
    }

    /// A pod whose container runs.
    pub fn running() -> Self {
        PodStatus::new(Phase::Running, ContainerState::Running)
    }

    /// A pod whose container has ended. The pod itself runs on, as it does while its files are served.
    pub fn exited(exit_code: i32, reason: impl Into<String>, message: impl Into<String>) -> Self {
        PodStatus::new(Phase::Running, ContainerState::Terminated(Terminated::new(exit_code, reason, message)))
    }
}

impl Cause {
    /// A cause of these two parts.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Cause { reason: reason.into(), message: message.into() }
    }
}

impl Default for Cause {
    /// Nothing is known: both parts are empty.
    fn default() -> Self {
        Cause::new("", "")
    }
}

impl Terminated {
    /// How a container ended.
    pub fn new(exit_code: i32, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Terminated { exit_code, reason: reason.into(), message: message.into() }
    }
}

impl PodSpec {
    /// A pod that runs an image as it is, with a quarter of a CPU, 128 MiB of memory and an hour to live.
    pub fn new(namespace: impl Into<String>, image: impl Into<String>) -> Self {
        PodSpec {
            namespace: namespace.into(),
            image: image.into(),
            command: vec![],
            args: vec![],
            env: vec![],
            cpu: "250m".into(),
            memory: "128Mi".into(),
            input_dir: "/input".into(),
            input_files: vec![],
            output_dir: "/output".into(),
            lifetime_ms: 60 * 60 * 1000,
            keep: false,
            service_account: None,
            image_pull_secrets: vec![],
            node_selector: vec![],
        }
    }
}
