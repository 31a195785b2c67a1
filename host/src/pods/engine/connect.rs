//! Finding the engine.

use super::api::{Api, Version};
use super::endpoint::Endpoint;
use super::owner::{self, Owner};
use super::request::RequestError;
use super::{EnginePods, Inner};
use crate::pods::causes::chain;
use crate::pods::reference::excerpt;
use etcetera::BaseStrategy;
use std::env;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// How long an engine may take to tell its version.
const ANSWER: Duration = Duration::from_secs(5);

/// Which engine to use, and where to keep track of its containers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The engine's address, as in `DOCKER_HOST`. `None`: `DOCKER_HOST`, then the usual sockets of Docker and Podman.
    pub host: Option<String>,
    /// A directory in which the processes of this user see which of them are alive. `None`: the containers of a killed
    /// process stay.
    pub state_dir: Option<PathBuf>,
}

impl Default for EngineOptions {
    /// The engine of this machine, and a directory in the user's cache.
    fn default() -> Self {
        let dirs = etcetera::choose_base_strategy().ok();
        EngineOptions { host: None, state_dir: dirs.map(|dirs| dirs.cache_dir().join("hops").join("engine")) }
    }
}

impl EngineOptions {
    /// Uses the engine at this address.
    #[must_use]
    pub fn host(mut self, address: impl Into<String>) -> Self {
        self.host = Some(address.into());
        self
    }

    /// Keeps track of containers in this directory.
    #[must_use]
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(dir.into());
        self
    }
}

/// Why there is no engine to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// None of the usual sockets has an engine behind it.
    #[error(
        "no Docker or Podman answers ({tried}); start one (for Podman: `systemctl --user start podman.socket`), \
         or set DOCKER_HOST to its address"
    )]
    None {
        /// The addresses, each with what is wrong there.
        tried: String,
    },
    /// The engine that was asked for does not answer.
    #[error("the engine at {address} does not answer: {why}; start it, or change DOCKER_HOST")]
    Silent {
        /// The address, as it was given.
        address: String,
        /// What is wrong there.
        why: String,
    },
    /// This user may not use the engine.
    #[error(
        "permission denied at {address}: this user may not use the engine; \
         add it to the socket's group (`sudo usermod -aG docker $USER`) and log in again"
    )]
    Denied {
        /// The engine's address.
        address: String,
    },
}

impl EnginePods {
    /// Finds the engine and asks for its version. Containers of this user's killed processes are removed in the
    /// background.
    ///
    /// # Errors
    /// No engine answers, or not the one that was asked for.
    pub async fn connect(options: EngineOptions) -> Result<Self, EngineError> {
        let (api, address, version) = find(options.host).await?;
        let logging_driver = api.logging_driver().await.unwrap_or_else(|error| {
            let why = chain(&error);
            tracing::warn!(why, "the logs of containers are kept on disk without a limit");
            String::new()
        });
        let owner = options.state_dir.and_then(|dir| {
            let owner = Owner::register(&dir);
            let warn = |error: &io::Error| {
                tracing::warn!(dir = %dir.display(), %error, "if this process is killed, its containers stay");
            };
            owner.inspect_err(warn).ok()
        });
        let description = format!("{} at {address}", name(&version));
        let tasks = TaskTracker::new();
        let inner = Arc::new(Inner { api, address, description, logging_driver, owner, tasks });
        inner.tasks.spawn(owner::sweep(inner.clone()));
        Ok(EnginePods { inner })
    }
}

async fn find(host: Option<String>) -> Result<(Api, String, Version), EngineError> {
    let host = host.or_else(|| env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()));
    if let Some(address) = host {
        return match ask(&address).await {
            Ok((api, version)) => Ok((api, address, version)),
            Err(NoAnswer::Denied) => Err(EngineError::Denied { address }),
            Err(NoAnswer::Other(why)) => Err(EngineError::Silent { address, why }),
        };
    }
    let mut tried = Vec::new();
    let mut denied = None;
    for socket in sockets() {
        let address = format!("unix://{}", socket.display());
        match ask(&address).await {
            Ok((api, version)) => return Ok((api, address, version)),
            Err(NoAnswer::Denied) => denied = denied.or(Some(address)),
            Err(NoAnswer::Other(why)) => tried.push(format!("{address}: {why}")),
        }
    }
    Err(match denied {
        Some(address) => EngineError::Denied { address },
        None => EngineError::None { tried: tried.join(", ") },
    })
}

/// Where Docker, Docker Desktop and Podman listen.
fn sockets() -> Vec<PathBuf> {
    let home = env::home_dir();
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let below = |dir: &Option<PathBuf>, path: &str| dir.as_ref().map(|dir| dir.join(path));
    let all = [
        Some("/var/run/docker.sock".into()),
        below(&runtime, "docker.sock"),
        below(&home, ".docker/run/docker.sock"),
        below(&home, ".docker/desktop/docker.sock"),
        below(&runtime, "podman/podman.sock"),
        Some("/run/podman/podman.sock".into()),
    ];
    all.into_iter().flatten().collect()
}

/// Why the engine at an address cannot be used.
enum NoAnswer {
    Denied,
    Other(String),
}

async fn ask(address: &str) -> Result<(Api, Version), NoAnswer> {
    let endpoint = Endpoint::parse(address).map_err(NoAnswer::Other)?;
    let answer = tokio::time::timeout(ANSWER, Api::connect(endpoint)).await;
    let answer = answer.unwrap_or(Err(RequestError::Late(ANSWER)));
    answer.map_err(|error| match &error {
        RequestError::Connect(cause) if cause.kind() == ErrorKind::PermissionDenied => NoAnswer::Denied,
        RequestError::Connect(cause) if cause.kind() == ErrorKind::NotFound => NoAnswer::Other("no such socket".into()),
        error => NoAnswer::Other(chain(error)),
    })
}

fn name(version: &Version) -> String {
    let name = if version.is_podman() { "Podman" } else { "Docker Engine" };
    format!("{name} {}", excerpt(&version.version))
}
