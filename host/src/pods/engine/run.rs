//! The life of one container, a step after the other: create, upload the files, start, wait for the end, remove.

use super::volume::Volume;
use super::{Inner, files, image, is_gone, remove};
use crate::pods::resources::Resources;
use crate::pods::{Cause, ContainerState, Error, Phase, PodSpec, PodStatus, Terminated};
use bollard::body_full;
use bollard::errors::Error as RequestError;
use bollard::models::{
    ContainerCreateBody, ContainerState as State, ContainerStateStatusEnum, HostConfig, Mount, MountType,
    MountVolumeOptions,
};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveVolumeOptions, UploadToContainerOptions, WaitContainerOptions,
};
use futures::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How much of its log tells why a container failed: as many bytes as Kubernetes takes.
const LOG_LINES: u32 = 20;
const LOG_BYTES: usize = 2048;
/// The least CPU that engines accept, in billionths.
const LEAST_NANO_CPUS: u64 = 10_000_000;
/// How long the engine may be out of reach while a container runs.
const OUTAGE: Duration = Duration::from_secs(30);
/// The pause before a container is looked at again, after a wait that broke off.
const PAUSE: Duration = Duration::from_millis(500);

/// A container, and what its task needs.
pub(super) struct Run {
    inner: Arc<Inner>,
    name: String,
    spec: PodSpec,
    /// `None` if the engine cannot limit CPU and memory.
    limits: Option<Resources>,
    volume: Arc<OnceLock<Volume>>,
    volume_name: Option<String>,
    statuses: watch::Sender<Result<PodStatus, Error>>,
    /// Cancelled when the pod is not wanted any more.
    end: CancellationToken,
}

/// What a step of a container's life came to.
enum Step {
    /// It is done: the next one follows.
    Done,
    /// None follows: the last status says why, or the pod is not wanted any more.
    Last,
}

/// What a request to create the container came to.
enum Creation {
    Created,
    /// The engine does not have the image.
    NoImage,
    /// No image can have this name, for this reason.
    BadImage(String),
}

impl Run {
    pub(super) fn new(inner: Arc<Inner>, spec: PodSpec, end: CancellationToken) -> Result<Self, Error> {
        let limits = Some(Resources::of(&spec)?);
        let name = format!("hiphops-run-{}", uuid::Uuid::new_v4().simple());
        let (statuses, _) = watch::channel(Ok(waiting("ContainerCreating", String::new())));
        Ok(Run { inner, name, spec, limits, volume: Arc::default(), volume_name: None, statuses, end })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn output_dir(&self) -> &str {
        &self.spec.output_dir
    }

    /// The output directory, as soon as it is found in the file system.
    pub(super) fn volume(&self) -> Arc<OnceLock<Volume>> {
        self.volume.clone()
    }

    /// The statuses, beginning with the present one.
    pub(super) fn statuses(&self) -> watch::Receiver<Result<PodStatus, Error>> {
        let mut statuses = self.statuses.subscribe();
        statuses.mark_changed();
        statuses
    }

    /// Runs the container, and removes it when the pod is not wanted any more. Sends to `accepted` whether the engine
    /// accepts it, before it starts.
    ///
    /// A request that changes something is never dropped: the engine may carry it out, and nobody would clean up.
    pub(super) async fn run(mut self, accepted: oneshot::Sender<Result<(), Error>>) {
        if let Err(error) = self.steps(accepted).await {
            let _ = self.statuses.send_replace(Err(error));
        }
        if self.spec.keep {
            return;
        }
        self.end.cancelled().await;
        let is_removed = remove(&self.inner, &self.name).await;
        if let (false, Some(volume)) = (is_removed, &self.volume_name) {
            // Somebody else removed the container, perhaps without its volume.
            let _ = self.inner.docker.remove_volume(volume, None::<RemoveVolumeOptions>).await;
        }
    }

    async fn steps(&mut self, accepted: oneshot::Sender<Result<(), Error>>) -> Result<(), Error> {
        if let Step::Last = self.create(accepted).await? {
            return Ok(());
        }
        if let Step::Last = self.put_files().await? {
            return Ok(());
        }
        if let Step::Last = self.start().await? {
            return Ok(());
        }
        self.publish(status(ContainerState::Running));
        self.await_end().await
    }

    /// Whether the pod is not wanted any more, and is not to be kept.
    fn is_over(&self) -> bool {
        self.end.is_cancelled() && !self.spec.keep
    }

    /// Creates the container, after pulling its image if need be.
    async fn create(&mut self, accepted: oneshot::Sender<Result<(), Error>>) -> Result<Step, Error> {
        let mut creation = self.try_create().await;
        let verdict = creation.as_ref().map(drop).map_err(Clone::clone);
        let is_alone = accepted.send(verdict).is_err();
        if is_alone && !self.spec.keep {
            return Ok(Step::Last);
        }
        if let Ok(Creation::NoImage) = creation {
            if let Step::Last = self.pull().await {
                return Ok(Step::Last);
            }
            creation = self.try_create().await;
        }
        match creation? {
            Creation::Created => return Ok(Step::Done),
            Creation::NoImage => {
                self.publish(failed("ErrImagePull", format!("{} is not there after pulling it", self.spec.image)));
            }
            Creation::BadImage(why) => self.publish(waiting("InvalidImageName", why)),
        }
        Ok(Step::Last)
    }

    async fn try_create(&self) -> Result<Creation, Error> {
        let options = CreateContainerOptions { name: Some(self.name.clone()), platform: String::new() };
        match self.inner.docker.create_container(Some(options), self.body()).await {
            Ok(created) => {
                for warning in created.warnings {
                    tracing::warn!(container = self.name, "the engine warns: {warning}");
                }
                Ok(Creation::Created)
            }
            Err(RequestError::DockerResponseServerError { status_code: 404, .. }) => Ok(Creation::NoImage),
            Err(RequestError::DockerResponseServerError { message, .. })
                if ["reference format", "normalizing image"].iter().any(|words| message.contains(words)) =>
            {
                Ok(Creation::BadImage(format!("{:?} is not an image name: {message}", self.spec.image)))
            }
            Err(error) => Err(self.inner.explain(error)),
        }
    }

    fn body(&self) -> ContainerCreateBody {
        let spec = &self.spec;
        let some = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
        // Of two variables of one name, a pod's container sees the last and an engine's the first.
        let env: BTreeMap<&str, &str> = spec.env.iter().map(|(name, value)| (&**name, &**value)).collect();
        let number = |number: u64| Some(i64::try_from(number).unwrap_or(i64::MAX));
        let memory = self.limits.and_then(|limits| number(limits.memory));
        ContainerCreateBody {
            image: Some(spec.image.clone()),
            entrypoint: some(&spec.command),
            cmd: some(&spec.args),
            env: Some(env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            labels: Some(self.labels()),
            host_config: Some(HostConfig {
                // An anonymous volume: it is removed with the container, and starts empty whatever the image has there.
                mounts: Some(vec![Mount {
                    typ: Some(MountType::VOLUME),
                    target: Some(spec.output_dir.clone()),
                    volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
                    ..Mount::default()
                }]),
                memory,
                // Memory and swap together: equal to the memory, so that there is no swap.
                memory_swap: memory,
                nano_cpus: self.limits.and_then(|limits| number(limits.nano_cpus.max(LEAST_NANO_CPUS))),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    fn labels(&self) -> HashMap<String, String> {
        let ours = [
            ("app.kubernetes.io/managed-by", "hops-k8s"),
            ("hiphops-io/for", "workflow-step"),
            ("hiphops-io/skip_cleanup", if self.spec.keep { "true" } else { "false" }),
        ];
        let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
        // A container that is to be kept has no owner: no other process removes it.
        let owner = self.inner.owner.as_ref().filter(|_| !self.spec.keep);
        let owner = owner.map(|owner| owner.labels(Duration::from_millis(self.spec.lifetime_ms)));
        ours.into_iter().chain(owner.into_iter().flatten()).collect()
    }

    /// Pulls the image, again and again while that may help.
    async fn pull(&self) -> Step {
        let pulling = image::pull(
            &self.inner,
            &self.spec.image,
            |message| self.publish(waiting("Pulling", message)),
            |why| self.publish(waiting("ErrImagePull", why)),
        );
        match self.end.run_until_cancelled(pulling).await {
            None => Step::Last,
            Some(Ok(())) => {
                self.publish(waiting("ContainerCreating", String::new()));
                Step::Done
            }
            Some(Err(why)) => {
                self.publish(failed("ErrImagePull", why));
                Step::Last
            }
        }
    }

    /// Finds the output volume, and uploads what cannot be done through it.
    async fn put_files(&mut self) -> Result<Step, Error> {
        if self.is_over() {
            return Ok(Step::Last);
        }
        let container = self.inner.docker.inspect_container(&self.name, None).await;
        let mounts = container.map_err(|error| self.inner.explain(error))?.mounts.unwrap_or_default();
        // As paths: the engine drops a slash at the end.
        let output_dir = Some(Path::new(self.output_dir()));
        let output = mounts.iter().find(|mount| mount.destination.as_deref().map(Path::new) == output_dir);
        self.volume_name = output.and_then(|mount| mount.name.clone());
        if let Some(volume) = output.and_then(Volume::find) {
            let _ = self.volume.set(volume);
            if self.spec.input_files.is_empty() {
                return Ok(Step::Done);
            }
        }
        let archive = files::pack(&self.spec).map_err(|error| Error::Invalid(format!("input-files: {error}")))?;
        let options = UploadToContainerOptions { path: "/".into(), ..UploadToContainerOptions::default() };
        let put = self.inner.docker.upload_to_container(&self.name, Some(options), body_full(archive.into())).await;
        put.map_err(|error| self.inner.explain(error))?;
        Ok(Step::Done)
    }

    /// Starts the container, without limits if the engine has none.
    async fn start(&mut self) -> Result<Step, Error> {
        loop {
            if self.is_over() {
                return Ok(Step::Last);
            }
            match self.inner.docker.start_container(&self.name, None).await {
                Ok(()) => return Ok(Step::Done),
                Err(error) if is_gone(&error) => {
                    self.publish(deleted());
                    return Ok(Step::Last);
                }
                // Rootless engines on many machines cannot limit CPU.
                Err(RequestError::DockerResponseServerError { message, .. })
                    if self.limits.is_some() && message.contains("cgroup controller") =>
                {
                    let why = trimmed(&message);
                    tracing::warn!(container = self.name, "runs without limits of CPU and memory: {why}");
                    if let Step::Last = self.recreate_without_limits().await? {
                        return Ok(Step::Last);
                    }
                }
                Err(RequestError::DockerResponseServerError { message, .. }) => {
                    self.publish(status(terminated(128, "StartError", trimmed(&message).to_owned())));
                    return Ok(Step::Last);
                }
                Err(error) => return Err(self.inner.explain(error)),
            }
        }
    }

    async fn recreate_without_limits(&mut self) -> Result<Step, Error> {
        self.limits = None;
        remove(&self.inner, &self.name).await;
        match self.try_create().await? {
            Creation::Created => self.put_files().await,
            Creation::NoImage | Creation::BadImage(_) => Err(Error::Gone("somebody removed the image".into())),
        }
    }

    /// Waits until the container ends, or ends it after its lifetime, and publishes how it ended.
    async fn await_end(&self) -> Result<(), Error> {
        let lifetime = Duration::from_millis(self.spec.lifetime_ms);
        let ended = tokio::time::timeout(lifetime, self.ended());
        let Some(ended) = self.end.run_until_cancelled(ended).await else { return Ok(()) };
        let is_overdue = ended.is_err();
        let state = match ended {
            Ok(state) => state?,
            Err(_) => {
                // If it cannot be killed, the wait for its end says why.
                let _ = self.inner.docker.kill_container(&self.name, None).await;
                self.ended().await?
            }
        };
        let Some(state) = state else {
            self.publish(deleted());
            return Ok(());
        };
        let mut status = self.final_status(&state).await;
        if is_overdue {
            status.phase = Phase::Failed;
            status.cause =
                cause("DeadlineExceeded", format!("the container was active for {lifetime:?} and was ended"));
        }
        self.publish(status);
        Ok(())
    }

    async fn final_status(&self, state: &State) -> PodStatus {
        let exit_code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
        let message = if exit_code == 0 { String::new() } else { self.log_end().await };
        let reason = match (state.oom_killed, exit_code) {
            (Some(true), _) => "OOMKilled",
            (_, 0) => "Completed",
            _ => "Error",
        };
        status(terminated(exit_code, reason, message))
    }

    /// Waits until the container has ended, and returns its state: `None` if somebody removed it.
    async fn ended(&self) -> Result<Option<State>, Error> {
        let mut unreachable_since = None;
        loop {
            let docker = self.inner.docker.clone().with_timeout(Duration::MAX);
            let options = WaitContainerOptions { condition: "not-running".into() };
            // Its answer does not matter. A wait can break off, and the state says all that an answer would.
            let _ = pin!(docker.wait_container(&self.name, Some(options))).next().await;
            match self.inner.docker.inspect_container(&self.name, None).await {
                Ok(container) => {
                    unreachable_since = None;
                    let state = container.state.unwrap_or_default();
                    use ContainerStateStatusEnum::{DEAD, REMOVING};
                    if matches!(state.status, Some(REMOVING | DEAD)) {
                        return Ok(None);
                    }
                    if state.running != Some(true) {
                        return Ok(Some(state));
                    }
                }
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => {
                    if unreachable_since.get_or_insert_with(Instant::now).elapsed() > OUTAGE {
                        return Err(self.inner.explain(error));
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn log_end(&self) -> String {
        let log = self.inner.tail_logs(&self.name, LOG_LINES).await.unwrap_or_default();
        let start = log.ceil_char_boundary(log.len().saturating_sub(LOG_BYTES));
        log.get(start..).unwrap_or_default().to_owned()
    }

    fn publish(&self, status: PodStatus) {
        let _ = self.statuses.send_replace(Ok(status));
    }
}

/// The part of an engine's message that says what went wrong, without the names of the layers that it went through.
fn trimmed(message: &str) -> &str {
    let start = ["unable to start container process: ", "crun: ", "OCI runtime create failed: "]
        .iter()
        .find_map(|layer| message.find(layer).map(|at| at + layer.len()))
        .unwrap_or_default();
    let message = message.get(start..).unwrap_or_default();
    let end = [": unknown", ": OCI runtime"].iter().filter_map(|noise| message.find(noise)).min();
    end.and_then(|end| message.get(..end)).unwrap_or(message)
}

fn status(main: ContainerState) -> PodStatus {
    let phase = if matches!(main, ContainerState::Waiting(_)) { Phase::Pending } else { Phase::Running };
    crate::pods::status(phase, main)
}

fn waiting(reason: &str, message: String) -> PodStatus {
    status(ContainerState::Waiting(cause(reason, message)))
}

/// The container waits for this reason, and will never start.
fn failed(reason: &str, message: String) -> PodStatus {
    let cause = cause(reason, message);
    PodStatus { phase: Phase::Failed, cause: cause.clone(), ..status(ContainerState::Waiting(cause)) }
}

fn deleted() -> PodStatus {
    PodStatus { deleted: true, ..status(ContainerState::Running) }
}

fn terminated(exit_code: i32, reason: &str, message: String) -> ContainerState {
    ContainerState::Terminated(Terminated { exit_code, reason: reason.into(), message })
}

fn cause(reason: &str, message: String) -> Cause {
    Cause { reason: reason.into(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::docker(
        "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: \
         exec: \"nope\": executable file not found in $PATH: unknown: Are you trying to mount a directory?",
        "exec: \"nope\": executable file not found in $PATH"
    )]
    #[case::podman(
        "crun: executable file `nope` not found in $PATH: No such file or directory: OCI runtime attempted to invoke a \
         command that was not found",
        "executable file `nope` not found in $PATH: No such file or directory"
    )]
    #[case::other("port is already allocated", "port is already allocated")]
    fn a_start_error_is_trimmed_to_what_went_wrong(#[case] message: &str, #[case] expected: &str) {
        assert_eq!(trimmed(message), expected);
    }
}
