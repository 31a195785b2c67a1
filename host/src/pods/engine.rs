//! Pods as containers of this machine's Docker or Podman.
//!
//! A call costs seven requests: create, inspect, upload the files, start, wait, inspect, download the result. The removal
//! follows in the background. Where this process may read the engine's volumes in the file system, the result needs no
//! request, and a call without input files needs no upload.
//!
//! What only Kubernetes has is ignored: the namespace, the service account, the pull secrets and the node selector.
//!
//! An image is pulled only if the engine does not have it. The credentials are those that `docker login` writes to
//! `~/.docker/config.json`; credential helpers are not asked.

mod connect;
mod files;
mod image;
mod owner;
mod run;
mod volume;

pub use connect::{EngineError, EngineOptions};

use super::causes::chain;
use super::{Error, Identity, MOST_LOG_BYTES, Pod, PodSpec, PodStatus, Pods};
use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error as RequestError;
use bollard::query_parameters::{LogsOptions, RemoveContainerOptions};
use futures::{StreamExt, TryStreamExt};
use owner::Owner;
use run::Run;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use tokio::io::AsyncRead;
use tokio::sync::{oneshot, watch};
use tokio_util::io::StreamReader;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use volume::Volume;

/// Pods as containers of one engine.
pub struct EnginePods {
    inner: Arc<Inner>,
}

struct Inner {
    docker: Docker,
    address: String,
    description: String,
    owner: Option<Owner>,
    /// One task for each container, from its creation to its removal.
    tasks: TaskTracker,
}

impl fmt::Debug for EnginePods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnginePods").field("engine", &self.inner.description).finish_non_exhaustive()
    }
}

impl EnginePods {
    /// The engine's name, version and address, for people.
    pub fn description(&self) -> &str {
        &self.inner.description
    }
}

#[async_trait]
impl Pods for EnginePods {
    async fn create(&self, spec: PodSpec, _: Identity) -> Result<Box<dyn Pod>, Error> {
        let end = CancellationToken::new();
        let run = Run::new(self.inner.clone(), spec, end.clone())?;
        let pod = EnginePod {
            inner: self.inner.clone(),
            name: run.name().to_owned(),
            output_dir: run.output_dir().to_owned(),
            volume: run.volume(),
            statuses: run.statuses(),
            end: Some(end.drop_guard()),
        };
        let (accepted, verdict) = oneshot::channel();
        self.inner.tasks.spawn(run.run(accepted));
        verdict.await.map_err(|_| Error::Other("the creation of the container was broken off".into()))??;
        Ok(Box::new(pod))
    }

    async fn drained(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.tasks.reopen();
    }
}

struct EnginePod {
    inner: Arc<Inner>,
    name: String,
    output_dir: String,
    volume: Arc<OnceLock<Volume>>,
    statuses: watch::Receiver<Result<PodStatus, Error>>,
    /// Dropped when the pod is not wanted any more: the task then removes the container.
    end: Option<DropGuard>,
}

#[async_trait]
impl Pod for EnginePod {
    fn name(&self) -> &str {
        &self.name
    }

    async fn changed(&mut self) -> Result<PodStatus, Error> {
        let no_more = |_| Error::Other("the container is no longer watched".into());
        self.statuses.changed().await.map_err(no_more)?;
        self.statuses.borrow_and_update().clone()
    }

    async fn read_file(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        if let Some(volume) = self.volume.get().cloned() {
            let path = path.to_owned();
            let read = tokio::task::spawn_blocking(move || volume.read(&path, limit)).await;
            if let Ok(Some(content)) = read {
                return content;
            }
        }
        files::read(&self.inner, &self.name, &self.output_dir, path, limit).await
    }

    async fn tail_logs(&mut self, lines: u32) -> Result<String, Error> {
        self.inner.tail_logs(&self.name, lines).await.map_err(|error| self.inner.explain(error))
    }

    async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error> {
        let options = LogsOptions { follow: true, stdout: true, stderr: true, ..LogsOptions::default() };
        let log = self.inner.docker.logs(&self.name, Some(options));
        let bytes = log.map(|output| output.map(|output| output.into_bytes()).map_err(io::Error::other));
        Ok(Box::pin(StreamReader::new(Box::pin(bytes))))
    }

    /// The removal goes on in the background.
    async fn delete(&mut self) -> Result<(), Error> {
        self.end = None;
        Ok(())
    }
}

impl Inner {
    async fn tail_logs(&self, container: &str, lines: u32) -> Result<String, RequestError> {
        let options = LogsOptions { stdout: true, stderr: true, tail: lines.to_string(), ..LogsOptions::default() };
        let log: Vec<u8> = self
            .docker
            .logs(container, Some(options))
            .map_ok(|output| output.into_bytes())
            .try_fold(Vec::new(), async |mut log, bytes| {
                log.extend_from_slice(&bytes);
                log.drain(..log.len().saturating_sub(MOST_LOG_BYTES));
                Ok(log)
            })
            .await?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// What a failed request means for the pod.
    fn explain(&self, error: RequestError) -> Error {
        match error {
            error if is_gone(&error) => Error::Gone("somebody removed the container".into()),
            RequestError::DockerResponseServerError { status_code: 400, message } => Error::Invalid(message),
            RequestError::DockerResponseServerError { status_code, message } => {
                Error::Other(format!("the engine at {} answered {status_code}: {message}", self.address))
            }
            error => Error::Unavailable(format!(
                "the engine at {} does not answer: {}; check that it runs",
                self.address,
                chain(&error)
            )),
        }
    }
}

/// Whether a request failed because the container does not exist.
fn is_gone(error: &RequestError) -> bool {
    matches!(error, RequestError::DockerResponseServerError { status_code: 404, message }
        if message.to_lowercase().contains("no such container"))
}

/// Removes a container with its volumes. Returns whether this request removed it: it may be gone already, or being
/// removed by somebody else.
async fn remove(inner: &Inner, container: &str) -> bool {
    let options = RemoveContainerOptions { force: true, v: true, link: false };
    match inner.docker.remove_container(container, Some(options)).await {
        Ok(()) => true,
        Err(RequestError::DockerResponseServerError { status_code: 404 | 409, .. }) => false,
        Err(error) => {
            let why = chain(&error);
            tracing::warn!(container, why, "container not removed; the next process of this user tries again");
            false
        }
    }
}
