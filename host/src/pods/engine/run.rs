//! The life of one container, a step after the other: create, upload the files, start, wait for the end, remove.

use super::api::State;
use super::request::RequestError;
use super::volume::Volume;
use super::{Inner, container, files, image, is_gone, remove};
use crate::pods::reference::{Reference, excerpt};
use crate::pods::resources::Resources;
use crate::pods::{Cause, Error, Phase, PodSpec, PodStatus};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How much of its log tells why a container failed: as many bytes as Kubernetes takes.
const LOG_LINES: u32 = 20;
const LOG_BYTES: usize = 2048;
/// How long the engine may be out of reach while a container runs.
const OUTAGE: Duration = Duration::from_secs(30);
/// The pause before a container is looked at again, after a wait that broke off.
const PAUSE: Duration = Duration::from_millis(500);

/// A container, and what its task needs.
pub(super) struct Run {
    inner: Arc<Inner>,
    name: String,
    spec: PodSpec,
    /// `None` if the engine cannot limit CPU, memory and processes.
    resources: Option<Resources>,
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
}

impl Run {
    pub(super) fn new(inner: Arc<Inner>, spec: PodSpec, end: CancellationToken) -> Result<Self, Error> {
        let resources = Some(Resources::of(&spec)?);
        let name = format!("hiphops-run-{}", uuid::Uuid::new_v4().simple());
        let (statuses, _) = watch::channel(Ok(PodStatus::waiting("ContainerCreating", "")));
        Ok(Run { inner, name, spec, resources, volume: Arc::default(), volume_name: None, statuses, end })
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
            let _ = self.inner.api.remove_volume(volume).await;
        }
    }

    async fn steps(&mut self, accepted: oneshot::Sender<Result<(), Error>>) -> Result<(), Error> {
        // In full: short, it could be the id of an image on this machine, which may be from anywhere.
        let name = self.spec.image.clone();
        let image = match Reference::parse(&name) {
            Ok(image) => image,
            Err(why) => {
                let _ = accepted.send(Ok(()));
                let why = format!("{:?} is not the name of an image: {why}", excerpt(&name));
                self.publish(PodStatus::waiting("InvalidImageName", why));
                return Ok(());
            }
        };
        if let Step::Last = self.create(&image, accepted).await? {
            return Ok(());
        }
        if let Step::Last = self.put_files().await? {
            return Ok(());
        }
        if let Step::Last = self.start(&image).await? {
            return Ok(());
        }
        self.publish(PodStatus::running());
        self.await_end().await
    }

    /// Whether the pod is not wanted any more, and is not to be kept.
    fn is_over(&self) -> bool {
        self.end.is_cancelled() && !self.spec.keep
    }

    /// Creates the container, after pulling its image if need be.
    async fn create(
        &mut self,
        image: &Reference<'_>,
        accepted: oneshot::Sender<Result<(), Error>>,
    ) -> Result<Step, Error> {
        let mut creation = self.try_create(image).await;
        let verdict = creation.as_ref().map(drop).map_err(Clone::clone);
        let is_alone = accepted.send(verdict).is_err();
        if is_alone && !self.spec.keep {
            return Ok(Step::Last);
        }
        if let Ok(Creation::NoImage) = creation {
            if let Step::Last = self.pull(image).await {
                return Ok(Step::Last);
            }
            creation = self.try_create(image).await;
        }
        match creation? {
            Creation::Created => Ok(Step::Done),
            Creation::NoImage => {
                self.publish(failed("ErrImagePull", format!("{image} is not there after pulling it")));
                Ok(Step::Last)
            }
        }
    }

    async fn try_create(&self, image: &Reference<'_>) -> Result<Creation, Error> {
        let body = container::body(&self.inner, &self.spec, &image.to_string(), self.resources);
        match self.inner.api.create(&self.name, &body).await {
            Ok(warnings) => {
                for warning in warnings {
                    tracing::warn!(container = self.name, "the engine warns: {}", excerpt(&warning));
                }
                Ok(Creation::Created)
            }
            Err(RequestError::Refused { status: 404, .. }) => Ok(Creation::NoImage),
            Err(error) => Err(self.inner.explain(error)),
        }
    }

    /// Pulls the image, again and again while that may help.
    async fn pull(&self, image: &Reference<'_>) -> Step {
        let pulling = image::pull(
            &self.inner,
            image,
            |message| self.publish(PodStatus::waiting("Pulling", message)),
            |why| self.publish(PodStatus::waiting("ErrImagePull", why)),
        );
        match self.end.run_until_cancelled(pulling).await {
            None => Step::Last,
            Some(Ok(())) => {
                self.publish(PodStatus::waiting("ContainerCreating", ""));
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
        let container = self.inner.api.inspect(&self.name).await.map_err(|error| self.inner.explain(error))?;
        let mounts = container.mounts();
        // As paths: the engine drops a slash at the end.
        let output = mounts.iter().find(|mount| Path::new(&mount.destination) == Path::new(self.output_dir()));
        self.volume_name = output.and_then(|mount| mount.name.clone());
        if let Some(volume) = output.and_then(Volume::find) {
            let _ = self.volume.set(volume);
            if self.spec.input_files.is_empty() {
                return Ok(Step::Done);
            }
        }
        let archive = files::pack(&self.spec).map_err(|error| Error::Invalid(format!("input-files: {error}")))?;
        self.inner.api.upload(&self.name, archive).await.map_err(|error| self.inner.explain(error))?;
        Ok(Step::Done)
    }

    /// Starts the container, without limits if the engine has none.
    async fn start(&mut self, image: &Reference<'_>) -> Result<Step, Error> {
        loop {
            if self.is_over() {
                return Ok(Step::Last);
            }
            match self.inner.api.start(&self.name).await {
                Ok(()) => return Ok(Step::Done),
                Err(error) if is_gone(&error) => {
                    self.publish(deleted());
                    return Ok(Step::Last);
                }
                // Rootless engines on many machines cannot limit CPU.
                Err(RequestError::Refused { message, .. })
                    if self.resources.is_some() && message.contains("cgroup controller") =>
                {
                    let why = trimmed(&message);
                    tracing::warn!(container = self.name, "runs without limits of CPU, memory and processes: {why}");
                    if let Step::Last = self.recreate_without_limits(image).await? {
                        return Ok(Step::Last);
                    }
                }
                Err(RequestError::Refused { message, .. }) => {
                    self.publish(PodStatus::exited(128, "StartError", trimmed(&message)));
                    return Ok(Step::Last);
                }
                Err(error) => return Err(self.inner.explain(error)),
            }
        }
    }

    async fn recreate_without_limits(&mut self, image: &Reference<'_>) -> Result<Step, Error> {
        self.resources = None;
        remove(&self.inner, &self.name).await;
        match self.try_create(image).await? {
            Creation::Created => self.put_files().await,
            Creation::NoImage => Err(Error::Gone("somebody removed the image".into())),
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
                let _ = self.inner.api.kill(&self.name).await;
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
                Cause::new("DeadlineExceeded", format!("the container was active for {lifetime:?} and was ended"));
        }
        self.publish(status);
        Ok(())
    }

    async fn final_status(&self, state: &State) -> PodStatus {
        let exit_code = i32::try_from(state.exit_code).unwrap_or(-1);
        let message = if exit_code == 0 { String::new() } else { self.log_end().await };
        let reason = match (state.oom_killed, exit_code) {
            (true, _) => "OOMKilled",
            (_, 0) => "Completed",
            _ => "Error",
        };
        PodStatus::exited(exit_code, reason, message)
    }

    /// Waits until the container has ended, and returns its state: `None` if somebody removed it.
    async fn ended(&self) -> Result<Option<State>, Error> {
        let mut unreachable_since = None;
        loop {
            // Its answer does not matter. A wait can break off, and the state says all that an answer would.
            let _ = self.inner.api.wait(&self.name).await;
            match self.inner.api.inspect(&self.name).await {
                Ok(container) => {
                    unreachable_since = None;
                    let state = container.state;
                    if matches!(&*state.status, "removing" | "dead") {
                        return Ok(None);
                    }
                    if !state.running {
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

/// The container waits for this reason, and will never start.
fn failed(reason: &str, message: String) -> PodStatus {
    let status = PodStatus::waiting(reason, message.clone());
    PodStatus { phase: Phase::Failed, cause: Cause::new(reason, message), ..status }
}

fn deleted() -> PodStatus {
    PodStatus { deleted: true, ..PodStatus::running() }
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
