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

mod api;
mod connect;
mod container;
mod endpoint;
mod files;
mod image;
mod log;
mod owner;
mod request;
mod run;
mod volume;

pub use connect::{EngineError, EngineOptions};

use super::causes::chain;
use super::{Error, Identity, MOST_LOG_BYTES, Pod, PodSpec, PodStatus, Pods};
use api::Api;
use async_trait::async_trait;
use futures::TryStreamExt;
use owner::Owner;
use request::RequestError;
use run::Run;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::sync::{oneshot, watch};
use tokio_util::io::StreamReader;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use volume::Volume;

/// How long it may take to read the end of a log, and the most bytes that are read for it: a thousand lines of the length
/// that engines have.
const LOG_PATIENCE: Duration = Duration::from_secs(30);
const MOST_LOG_READ: usize = 32 << 20;

/// Pods as containers of one engine.
pub struct EnginePods {
    inner: Arc<Inner>,
}

struct Inner {
    api: Api,
    address: String,
    description: String,
    /// How the engine keeps the logs of containers. Empty if it does not say.
    logging_driver: String,
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
        let log = self.inner.api.follow_logs(&self.name).await.map_err(|error| self.inner.explain(error))?;
        Ok(Box::pin(StreamReader::new(log.map_err(io::Error::other))))
    }

    /// The removal goes on in the background.
    async fn delete(&mut self) -> Result<(), Error> {
        self.end = None;
        Ok(())
    }
}

impl Inner {
    async fn tail_logs(&self, container: &str, lines: u32) -> Result<String, RequestError> {
        let reading = async {
            let mut log = self.api.tail_logs(container, lines).await?;
            let (mut end, mut read) = (Vec::new(), 0);
            while let Some(bytes) = log.try_next().await?
                && read < MOST_LOG_READ
            {
                read += bytes.len();
                end.extend_from_slice(&bytes);
                // Not with each piece: what is kept has to move.
                if end.len() > 2 * MOST_LOG_BYTES {
                    end.drain(..end.len() - MOST_LOG_BYTES);
                }
            }
            end.drain(..end.len().saturating_sub(MOST_LOG_BYTES));
            Ok(String::from_utf8_lossy(&end).into_owned())
        };
        tokio::time::timeout(LOG_PATIENCE, reading).await.unwrap_or(Err(RequestError::Late(LOG_PATIENCE)))
    }

    fn explain(&self, error: RequestError) -> Error {
        explain(&self.address, error)
    }
}

/// What a failed request means for the pod.
fn explain(address: &str, error: RequestError) -> Error {
    match error {
        error if is_gone(&error) => Error::Gone("somebody removed the container".into()),
        RequestError::Refused { status: 400, message } => Error::Invalid(message),
        RequestError::Refused { status, message } => {
            Error::Other(format!("the engine at {address} answered {status}: {message}"))
        }
        RequestError::TooLong(_) | RequestError::Unreadable(_) => {
            Error::Other(format!("the engine at {address} does not answer as it should: {}", chain(&error)))
        }
        RequestError::Connect(_) | RequestError::Broken(_) | RequestError::Late(_) => Error::Unavailable(format!(
            "the engine at {address} does not answer: {}; check that it runs",
            chain(&error)
        )),
    }
}

/// Whether a request failed because the container does not exist.
fn is_gone(error: &RequestError) -> bool {
    matches!(error, RequestError::Refused { status: 404, message }
        if message.to_lowercase().contains("no such container"))
}

/// Removes a container with its volumes. Returns whether this request removed it: it may be gone already, or being
/// removed by somebody else.
async fn remove(inner: &Inner, container: &str) -> bool {
    match inner.api.remove(container).await {
        Ok(()) => true,
        Err(RequestError::Refused { status: 404 | 409, .. }) => false,
        Err(error) => {
            let why = chain(&error);
            tracing::warn!(container, why, "container not removed; the next process of this user tries again");
            false
        }
    }
}
