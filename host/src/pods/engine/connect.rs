//! Finding the engine.

use super::owner::{self, Owner};
use super::{EnginePods, Inner};
use crate::pods::causes::chain;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::SystemVersion;
use etcetera::BaseStrategy;
use std::env;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// The longest that an engine may take to say who it is.
const ANSWER: Duration = Duration::from_secs(5);

/// Which engine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The engine's address, as in `DOCKER_HOST`. None: `DOCKER_HOST`, then the usual sockets of Docker and Podman.
    pub host: Option<String>,
    /// A directory in which the processes of this user see which of them still live. None: what a killed process left
    /// behind stays.
    pub state_dir: Option<PathBuf>,
}

impl Default for EngineOptions {
    /// The engine of this machine, and a directory in the user's cache.
    fn default() -> Self {
        let dirs = etcetera::choose_base_strategy().ok();
        EngineOptions { host: None, state_dir: dirs.map(|dirs| dirs.cache_dir().join("hops").join("engine")) }
    }
}

/// Why there is no engine to talk to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// None of the usual sockets has an engine behind it.
    #[error(
        "no Docker or Podman answers ({tried}); start one (for Podman: `systemctl --user start podman.socket`), \
         or set DOCKER_HOST to its address"
    )]
    None {
        /// Each address, and what came of it.
        tried: String,
    },
    /// The engine that was asked for does not answer.
    #[error("the engine at {address} does not answer: {why}; start it, or change DOCKER_HOST")]
    Silent {
        /// The address, as it was given.
        address: String,
        /// What came of it.
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
    /// Finds the engine and asks who it is. Containers that killed processes of this user left there are removed in
    /// the background.
    ///
    /// # Errors
    /// There is none, or not the one that was asked for.
    pub async fn connect(options: EngineOptions) -> Result<Self, EngineError> {
        let (docker, address, version) = find(options.host).await?;
        let owner = options.state_dir.and_then(|dir| {
            let owner = Owner::register(&dir);
            owner.inspect_err(|error| tracing::warn!(dir = %dir.display(), %error, "containers have no owner")).ok()
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
            Err(Silence::Denied) => Err(EngineError::Denied { address }),
            Err(Silence::Other(why)) => Err(EngineError::Silent { address, why }),
        };
    }
    let mut tried = Vec::new();
    let mut denied = None;
    for socket in sockets() {
        let address = format!("unix://{}", socket.display());
        match ask(&address).await {
            Ok((docker, version)) => return Ok((docker, address, version)),
            Err(Silence::Denied) => denied = denied.or(Some(address)),
            Err(Silence::Other(why)) => tried.push(format!("{address}: {why}")),
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

/// Why an address has no engine for us.
enum Silence {
    Denied,
    Other(String),
}

async fn ask(address: &str) -> Result<(Docker, SystemVersion), Silence> {
    let silence = |error: Error| match io_error(&error) {
        Some(ErrorKind::PermissionDenied) => Silence::Denied,
        Some(ErrorKind::NotFound) => Silence::Other("no such socket".into()),
        _ => Silence::Other(chain(&error)),
    };
    let docker = Docker::connect_with_host(address).map_err(|error| match error {
        Error::UnsupportedURISchemeError { .. } => Silence::Other(
            "it must begin with unix://, tcp:// or npipe:// (ssh: forward the socket with `ssh -L`)".into(),
        ),
        Error::SocketNotFoundError(_) => Silence::Other("no such socket".into()),
        error => silence(error),
    })?;
    let version = tokio::time::timeout(ANSWER, docker.version()).await;
    let version = version.map_err(|_| Silence::Other(format!("nothing within {} s", ANSWER.as_secs())))?;
    Ok((docker, version.map_err(silence)?))
}

fn io_error(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
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
