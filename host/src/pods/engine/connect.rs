//! Finding the engine.

use super::owner::{self, Owner};
use super::{EnginePods, Inner};
use crate::pods::causes::chain;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::SystemVersion;
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
        let (docker, address, version) = find(options.host).await?;
        let owner = options.state_dir.and_then(|dir| {
            let owner = Owner::register(&dir);
            let warn = |error: &io::Error| {
                tracing::warn!(dir = %dir.display(), %error, "if this process is killed, its containers stay");
            };
            owner.inspect_err(warn).ok()
        });
        let description = format!("{} at {address}", name(version));
        let inner = Arc::new(Inner { docker, address, description, owner, tasks: TaskTracker::new() });
        inner.tasks.spawn(owner::sweep(inner.clone()));
        Ok(EnginePods { inner })
    }
}

async fn find(host: Option<String>) -> Result<(Docker, String, SystemVersion), EngineError> {
    let host = host.or_else(|| env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()));
    if let Some(address) = host {
        return match ask(&address).await {
            Ok((docker, version)) => Ok((docker, address, version)),
            Err(NoAnswer::Denied) => Err(EngineError::Denied { address }),
            Err(NoAnswer::Other(why)) => Err(EngineError::Silent { address, why }),
        };
    }
    let mut tried = Vec::new();
    let mut denied = None;
    for socket in sockets() {
        let address = format!("unix://{}", socket.display());
        match ask(&address).await {
            Ok((docker, version)) => return Ok((docker, address, version)),
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

async fn ask(address: &str) -> Result<(Docker, SystemVersion), NoAnswer> {
    let no_answer = |error: Error| match io_error(&error) {
        Some(ErrorKind::PermissionDenied) => NoAnswer::Denied,
        Some(ErrorKind::NotFound) => NoAnswer::Other("no such socket".into()),
        _ => NoAnswer::Other(chain(&error)),
    };
    let docker = Docker::connect_with_host(address).map_err(|error| match error {
        Error::UnsupportedURISchemeError { .. } => NoAnswer::Other(
            "an address begins with unix:// or tcp:// (for ssh://, forward the socket with `ssh -L`)".into(),
        ),
        Error::SocketNotFoundError(_) => NoAnswer::Other("no such socket".into()),
        error => no_answer(error),
    })?;
    let version = tokio::time::timeout(ANSWER, docker.version()).await;
    let version = version.map_err(|_| NoAnswer::Other(format!("no answer within {} s", ANSWER.as_secs())))?;
    Ok((docker, version.map_err(no_answer)?))
}

/// The kind of the I/O error among an error and its causes.
fn io_error(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = cause.source();
    }
    None
}

fn name(version: SystemVersion) -> String {
    let is_podman = version.components.iter().flatten().any(|component| component.name.starts_with("Podman"));
    let name = if is_podman { "Podman" } else { "Docker Engine" };
    format!("{name} {}", version.version.unwrap_or_default())
}
