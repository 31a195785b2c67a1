//! Translates a Kubernetes pod into the status that plugins see.

use super::body::bounded;
use super::manifest::{MAIN, SIDECAR};
use crate::pods::{Cause, ContainerState, Phase, PodStatus, Terminated};
use k8s_openapi::api::core::v1 as k8s;
use std::net::IpAddr;

/// A pod as the watch last reported it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Snapshot {
    /// What the plugin sees.
    pub status: PodStatus,
    /// The pod's address.
    pub ip: Option<IpAddr>,
    /// How far the scheduler has come with it.
    pub placement: Placement,
}

/// How far the scheduler has come with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// The scheduler has not looked at it yet.
    Unseen,
    /// It would fit if other pods were not there.
    NoRoom,
    /// It takes up room on a node.
    OnNode,
    /// It has ended, or waits for something other than room.
    Uncounted,
}

impl Snapshot {
    /// Reads the object of a pod. `deleted`: the object was the last one before the pod was gone.
    pub(super) fn of(pod: &k8s::Pod, deleted: bool) -> Self {
        let status = pod.status.as_ref();
        let conditions = || status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let condition = |kind: &str, value: &str| conditions().find(|c| c.type_ == kind && c.status == value);
        let container = |name: &str| {
            status
                .and_then(|status| status.container_statuses.as_ref())
                .and_then(|containers| containers.iter().find(|container| container.name == name))
                .and_then(|container| container.state.as_ref())
                .map_or_else(|| ContainerState::Waiting(Cause::default()), state)
        };
        Snapshot {
            status: PodStatus {
                phase: match status.and_then(|status| status.phase.as_deref()) {
                    Some("Pending") | None => Phase::Pending,
                    Some("Running") => Phase::Running,
                    Some("Succeeded") => Phase::Succeeded,
                    Some("Failed") => Phase::Failed,
                    Some(_) => Phase::Unknown,
                },
                cause: status.map_or_else(Cause::default, |status| cause(&status.reason, &status.message)),
                unschedulable: condition("PodScheduled", "False")
                    .map(|condition| condition.message.as_deref().map(bounded).unwrap_or_default()),
                waits_for_room: false,
                disruption: condition("DisruptionTarget", "True")
                    .map(|condition| cause(&condition.reason, &condition.message)),
                deleted: deleted || pod.metadata.deletion_timestamp.is_some(),
                main: container(MAIN),
                sidecar: Some(container(SIDECAR)),
            },
            placement: placement(pod, condition("PodScheduled", "False"), deleted),
            // Only an address: a name would be looked up.
            ip: status.and_then(|status| status.pod_ip.as_ref()?.parse().ok()),
        }
    }
}

fn placement(pod: &k8s::Pod, refusal: Option<&k8s::PodCondition>, deleted: bool) -> Placement {
    let is_over =
        pod.status.as_ref().is_some_and(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")));
    let has_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    match refusal.and_then(|condition| condition.message.as_deref()) {
        _ if deleted || is_over => Placement::Uncounted,
        _ if has_node => Placement::OnNode,
        None => Placement::Unseen,
        Some(message) if is_about_room(message) => Placement::NoRoom,
        Some(_) => Placement::Uncounted,
    }
}

/// Whether the scheduler's message says that the pod would fit if other pods were not there:
/// `0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for
/// incoming pod.` If even an empty node is too small, the message says that preemption is not helpful.
fn is_about_room(message: &str) -> bool {
    let (filters, preemption) = message.split_once("preemption:").unwrap_or((message, ""));
    (filters.contains("Insufficient ") || filters.contains("Too many pods"))
        && (preemption.contains("victims") || !preemption.contains("not helpful"))
}

fn state(state: &k8s::ContainerState) -> ContainerState {
    if let Some(end) = &state.terminated {
        let Cause { reason, message } = cause(&end.reason, &end.message);
        ContainerState::Terminated(Terminated::new(end.exit_code, reason, message))
    } else if state.running.is_some() {
        ContainerState::Running
    } else {
        let waiting = state.waiting.as_ref();
        ContainerState::Waiting(waiting.map_or_else(Cause::default, |waiting| cause(&waiting.reason, &waiting.message)))
    }
}

fn cause(reason: &Option<String>, message: &Option<String>) -> Cause {
    let text = |text: &Option<String>| text.as_deref().map(bounded).unwrap_or_default();
    Cause::new(text(reason), text(message))
}
