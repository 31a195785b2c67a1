//! Which process owns a container: the containers of a killed process are removed, and no others.
//!
//! Each process locks a file of its own. However the process ends, the kernel releases the lock. The directory of these
//! files has an id. Containers that another user or machine created on the same engine bear the id of another directory.

use super::{Inner, remove};
use crate::pods::causes::chain;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;
use uuid::Uuid;

/// The label with the id of the directory in which owners lock their files.
const DIRECTORY: &str = "hiphops-io/owner-directory";
/// The label with the id of the owner.
const OWNER: &str = "hiphops-io/owner";
/// The label with the time, in seconds since 1970, after which a container is removed even if its owner is alive.
const DEADLINE: &str = "hiphops-io/deadline";

/// This process, as an owner of containers.
pub(super) struct Owner {
    dir: PathBuf,
    dir_id: String,
    id: String,
    _lock: File,
}

impl Owner {
    /// Creates and locks a file in `dir`.
    pub(super) fn register(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let dir_id = dir_id(dir)?;
        let id = Uuid::new_v4().to_string();
        let file = NamedTempFile::new_in(dir)?;
        // Locked before it has its name: others take a file without a lock for that of a dead process.
        file.as_file().lock()?;
        let lock = file.persist(dir.join(&id)).map_err(|error| error.error)?;
        Ok(Owner { dir: dir.to_owned(), dir_id, id, _lock: lock })
    }

    /// The labels of a container with this lifetime.
    pub(super) fn labels(&self, lifetime: Duration) -> [(String, String); 3] {
        let deadline = now().saturating_add(lifetime.as_secs()).to_string();
        [(DIRECTORY, self.dir_id.clone()), (OWNER, self.id.clone()), (DEADLINE, deadline)]
            .map(|(name, value)| (name.to_owned(), value))
    }

    fn is_dead(&self, owner: &str) -> bool {
        // Anybody can write a path into a label.
        if Uuid::parse_str(owner).is_err() {
            return false;
        }
        match File::open(self.dir.join(owner)) {
            Ok(file) => file.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Removes the files of dead processes.
    fn forget_the_dead(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| self.is_dead(name)) {
                fs::remove_file(self.dir.join(name))?;
            }
        }
        Ok(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.dir.join(&self.id));
    }
}

/// The id of the directory. It is a file in the directory, so that it is lost together with the locks.
fn dir_id(dir: &Path) -> io::Result<String> {
    let path = dir.join("id");
    if !path.exists() {
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(Uuid::new_v4().to_string().as_bytes())?;
        match file.persist_noclobber(&path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => return Err(error.error),
            _ => {}
        }
    }
    fs::read_to_string(path)
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

/// Removes the containers whose owner is dead or whose deadline has passed.
pub(super) async fn sweep(inner: Arc<Inner>) {
    let Some(owner) = &inner.owner else { return };
    let containers = match inner.api.containers(&format!("{DIRECTORY}={}", owner.dir_id)).await {
        Ok(containers) => containers,
        Err(error) => {
            let why = chain(&error);
            return tracing::warn!(why, "the containers of killed processes are not removed");
        }
    };
    for container in containers {
        let is_dead = container.label(OWNER).is_some_and(|id| owner.is_dead(id));
        let deadline = container.label(DEADLINE).and_then(|deadline| deadline.parse::<u64>().ok());
        if is_dead || deadline.is_some_and(|deadline| deadline < now()) {
            tracing::info!(container = container.id, "removing a container that its process left");
            remove(&inner, &container.id).await;
        }
    }
    if let Err(error) = owner.forget_the_dead() {
        tracing::debug!(%error, "the files of dead processes are not removed");
    }
}
