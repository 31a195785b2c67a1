//! One container, from creation to removal, and what there is to tell of it on the way.

use super::volume::Volume;
use super::{Inner, files, image, is_gone, remove};
use crate::pods::limits::Limits;
use crate::pods::{Cause, ContainerState, Error, Phase, PodSpec, PodStatus, Terminated};
use bollard::body_full;
use bollard::errors::Error as Failure;
use bollard::models::{
    ContainerCreateBody, ContainerState as State, ContainerStateStatusEnum, HostConfig, Mount, MountType,
    MountVolumeOptions,
};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveVolumeOptions, UploadToContainerOptions, WaitContainerOptions,
};
use futures::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The lines and bytes of its log that tell why a container failed, as many as Kubernetes takes bytes.
const LOG_LINES: u32 = 20;
const LOG_BYTES: usize = 2048;
/// The least CPU that engines take, in billionths.
const LEAST_NANO_CPUS: u64 = 10_000_000;
/// How long the engine may be out of reach while a container runs.
const OUTAGE: Duration = Duration::from_secs(30);
/// Between two looks at a container that an engine out of reach, or one that restarts, cannot tell the end of.
const PAUSE: Duration = Duration::from_millis(500);

/// A container and its task.
pub(super) struct Run {
    inner: Arc<Inner>,
    name: String,
    spec: PodSpec,
    limits: Option<Limits>,
    volume: Arc<OnceLock<Volume>>,
    volume_name: Option<String>,
    statuses: watch::Sender<Result<PodStatus, Error>>,
    /// Comes when nobody cares for the container any more.
    end: CancellationToken,
}

/// Why there is no container.
enum Refusal {
    NoImage,
    BadImage(String),
    Other(Error),
}

impl Run {
    pub(super) fn new(inner: Arc<Inner>, spec: PodSpec, end: CancellationToken) -> Result<Self, Error> {
        let limits = Some(Limits::of(&spec)?);
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

    /// The output directory, once and if it is found in the file system.
    pub(super) fn volume(&self) -> Arc<OnceLock<Volume>> {
        self.volume.clone()
    }

    /// The statuses, the present one first.
    pub(super) fn statuses(&self) -> watch::Receiver<Result<PodStatus, Error>> {
        let mut statuses = self.statuses.subscribe();
        statuses.mark_changed();
        statuses
    }

    /// Sees the container through to its removal. Whether the engine accepts it is said before it starts.
    ///
    /// Requests that change something are never broken off: the engine may go on with them, and nobody would clean up.
    pub(super) async fn run(mut self, verdict: oneshot::Sender<Result<(), Error>>) {
        if let Err(error) = self.play(verdict).await {
            let _ = self.statuses.send_replace(Err(error));
        }
        if !self.spec.keep {
            self.end.cancelled().await;
            if !remove(&self.inner, &self.name).await
                && let Some(volume) = &self.volume_name
            {
                // Who removed the container has left it, or it is gone too.
                let _ = self.inner.docker.remove_volume(volume, None::<RemoveVolumeOptions>).await;
            }
        }
    }

    async fn play(&mut self, verdict: oneshot::Sender<Result<(), Error>>) -> Result<(), Error> {
        let mut created = self.create().await;
        let accepted = match &created {
            Err(Refusal::Other(error)) => Err(error.clone()),
            _ => Ok(()),
        };
        if verdict.send(accepted).is_err() && !self.spec.keep {
            return Ok(());
        }
        if matches!(created, Err(Refusal::NoImage)) {
            if !self.pull().await {
                return Ok(());
            }
            created = self.create().await;
        }
        match created {
            Ok(()) => {}
            Err(Refusal::NoImage) => {
                self.tell(failed("ErrImagePull", format!("{} is not there after pulling it", self.spec.image)));
                return Ok(());
            }
            Err(Refusal::BadImage(why)) => {
                self.tell(waiting("InvalidImageName", why));
                return Ok(());
            }
            Err(Refusal::Other(error)) => return Err(error),
        }
        self.put_files().await?;
        if self.start().await? {
            self.tell(status(ContainerState::Running));
            self.await_end().await?;
        }
        Ok(())
    }

    /// Whether nobody cares for the container any more, and it need not stay.
    fn is_over(&self) -> bool {
        self.end.is_cancelled() && !self.spec.keep
    }

    async fn create(&self) -> Result<(), Refusal> {
        let options = CreateContainerOptions { name: Some(self.name.clone()), platform: String::new() };
        match self.inner.docker.create_container(Some(options), self.body()).await {
            Ok(created) => {
                for warning in created.warnings {
                    tracing::warn!(container = self.name, "the engine warns: {warning}");
                }
                Ok(())
            }
            Err(Failure::DockerResponseServerError { status_code: 404, .. }) => Err(Refusal::NoImage),
            Err(Failure::DockerResponseServerError { message, .. })
                if ["reference format", "normalizing image"].iter().any(|words| message.contains(words)) =>
            {
                Err(Refusal::BadImage(format!("{:?} is no image name: {message}", self.spec.image)))
            }
            Err(failure) => Err(Refusal::Other(self.inner.explain(failure))),
        }
    }

    fn body(&self) -> ContainerCreateBody {
        let spec = &self.spec;
        let some = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
        // The first of two variables of one name would win in the container.
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
                // Removed with the container. It starts empty, whatever the image has there.
                mounts: Some(vec![Mount {
                    typ: Some(MountType::VOLUME),
                    target: Some(spec.output_dir.clone()),
                    volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
                    ..Mount::default()
                }]),
                memory,
                // As much as the memory itself: none of it is swap.
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
        // What is to stay has no owner: nobody removes it when we are gone.
        let owner = self.inner.owner.as_ref().filter(|_| !self.spec.keep);
        let owner = owner.map(|owner| owner.labels(Duration::from_millis(self.spec.lifetime_ms)));
        ours.into_iter().chain(owner.into_iter().flatten()).collect()
    }

    /// Pulls the image, and tries again while that may help. Whether it is there now.
    async fn pull(&self) -> bool {
        let pulling = image::pull(
            &self.inner,
            &self.spec.image,
            |message| self.tell(waiting("Pulling", message)),
            |why| self.tell(waiting("ErrImagePull", why)),
        );
        match self.end.run_until_cancelled(pulling).await {
            None => false,
            Some(Ok(())) => {
                self.tell(waiting("ContainerCreating", String::new()));
                true
            }
            Some(Err(why)) => {
                self.tell(failed("ErrImagePull", why));
                false
            }
        }
    }

    async fn put_files(&mut self) -> Result<(), Error> {
        if self.is_over() {
            return Ok(());
        }
        let container = self.inner.docker.inspect_container(&self.name, None).await;
        let mounts = container.map_err(|failure| self.inner.explain(failure))?.mounts.unwrap_or_default();
        self.volume_name = mounts.iter().find_map(|mount| {
            let is_ours = mount.destination.as_deref() == Some(self.output_dir());
            mount.name.clone().filter(|_| is_ours)
        });
        if let Some(volume) = Volume::find(&mounts, &self.spec.output_dir) {
            let _ = self.volume.set(volume);
            if self.spec.input_files.is_empty() {
                return Ok(());
            }
        }
        let archive = files::pack(&self.spec).map_err(|error| Error::Invalid(format!("in_files: {error}")))?;
        let options = UploadToContainerOptions { path: "/".into(), ..UploadToContainerOptions::default() };
        let put = self.inner.docker.upload_to_container(&self.name, Some(options), body_full(archive.into())).await;
        put.map_err(|failure| self.inner.explain(failure))
    }

    /// Starts the container. Whether it runs; if not, it was told why.
    async fn start(&mut self) -> Result<bool, Error> {
        if self.is_over() {
            return Ok(false);
        }
        match self.inner.docker.start_container(&self.name, None).await {
            Ok(()) => Ok(true),
            Err(failure) if is_gone(&failure) => {
                self.tell(deleted());
                Ok(false)
            }
            Err(Failure::DockerResponseServerError { message, .. }) => {
                if self.limits.is_some() && message.contains("cgroup controller") {
                    return self.start_without_limits(&message).await;
                }
                self.tell(status(terminated(128, "StartError", trimmed(&message).to_owned())));
                Ok(false)
            }
            Err(failure) => Err(self.inner.explain(failure)),
        }
    }

    /// Rootless engines on many machines may not limit CPU.
    async fn start_without_limits(&mut self, why: &str) -> Result<bool, Error> {
        tracing::warn!(container = self.name, "runs without limits of CPU and memory: {}", trimmed(why));
        self.limits = None;
        remove(&self.inner, &self.name).await;
        match self.create().await {
            Err(Refusal::Other(error)) => return Err(error),
            Err(Refusal::NoImage | Refusal::BadImage(_)) => {
                return Err(Error::Gone("somebody removed the image".into()));
            }
            Ok(()) => {}
        }
        self.put_files().await?;
        Box::pin(self.start()).await
    }

    async fn await_end(&self) -> Result<(), Error> {
        let lifetime = Duration::from_millis(self.spec.lifetime_ms);
        let ended = tokio::time::timeout(lifetime, self.ended());
        let Some(ended) = self.end.run_until_cancelled(ended).await else { return Ok(()) };
        let is_overdue = ended.is_err();
        let state = match ended {
            Ok(state) => state?,
            Err(_) => {
                // If it cannot be killed, the look at its end says why.
                let _ = self.inner.docker.kill_container(&self.name, None).await;
                self.ended().await?
            }
        };
        let Some(state) = state else {
            self.tell(deleted());
            return Ok(());
        };
        let exit_code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
        let message = if exit_code == 0 { String::new() } else { self.log_end().await };
        let mut status = status(match (state.oom_killed, exit_code) {
            (Some(true), _) => terminated(exit_code, "OOMKilled", message),
            (_, 0) => terminated(exit_code, "Completed", message),
            _ => terminated(exit_code, "Error", message),
        });
        if is_overdue {
            status.phase = Phase::Failed;
            status.cause =
                cause("DeadlineExceeded", format!("the container was active for {lifetime:?} and was ended"));
        }
        self.tell(status);
        Ok(())
    }

    /// The state of the container when it has ended; none if somebody removed it.
    async fn ended(&self) -> Result<Option<State>, Error> {
        let mut silent_since = None;
        loop {
            let docker = self.inner.docker.clone().with_timeout(Duration::MAX);
            // What it says does not matter: the state says it all, and also what a broken wait does not.
            let options = WaitContainerOptions { condition: "not-running".into() };
            let _ = pin!(docker.wait_container(&self.name, Some(options))).next().await;
            match self.inner.docker.inspect_container(&self.name, None).await {
                Ok(container) => {
                    silent_since = None;
                    let state = container.state.unwrap_or_default();
                    use ContainerStateStatusEnum::{DEAD, REMOVING};
                    if matches!(state.status, Some(REMOVING | DEAD)) {
                        return Ok(None);
                    }
                    if state.running != Some(true) {
                        return Ok(Some(state));
                    }
                }
                Err(failure) if is_gone(&failure) => return Ok(None),
                Err(failure) => {
                    if silent_since.get_or_insert_with(Instant::now).elapsed() > OUTAGE {
                        return Err(self.inner.explain(failure));
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

    fn tell(&self, status: PodStatus) {
        let _ = self.statuses.send_replace(Ok(status));
    }
}

/// The engine's words without those of the layers below it that say where it was, not what it was.
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

/// What keeps the container from starting, and will go on to.
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
    fn a_start_error_is_trimmed_to_what_it_says(#[case] message: &str, #[case] expected: &str) {
        assert_eq!(trimmed(message), expected);
    }
}
