//! Pods that play a script: for tests of plugins and of embedders, without any container.

use super::{Error, Excess, Identity, Pod, PodSpec, PodStatus, Pods};
use async_trait::async_trait;
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::time::Instant;

/// What a pod does, and when. The times are those of tokio's clock: a test that pauses the clock does not wait.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Script {
    /// Why the pod is not created. Nothing else of the script is played then.
    pub refused: Option<Error>,
    /// The pod's statuses in order, each with the time since creation from which it holds.
    pub statuses: Vec<(Duration, PodStatus)>,
    /// The error after the last status. `None`: the last status holds for ever.
    pub lost: Option<Error>,
    /// The files below the output directory by relative path: the content, or why it cannot be read.
    pub files: HashMap<String, Result<Vec<u8>, Error>>,
    /// The container's log.
    pub log: String,
}

impl Script {
    /// A pod that is not created.
    pub fn refused(why: Error) -> Self {
        Script { refused: Some(why), ..Script::default() }
    }

    /// A pod that runs for a second and ends with this exit code.
    pub fn exits(code: i32) -> Self {
        let end = PodStatus::exited(code, if code == 0 { "Completed" } else { "Error" }, "");
        let start = PodStatus::waiting("ContainerCreating", "");
        Script::default().at(0, start).at(100, PodStatus::running()).at(1100, end)
    }

    /// Adds a status that holds from so many milliseconds after creation. Statuses are added in order of time.
    #[must_use]
    pub fn at(mut self, millis: u64, status: PodStatus) -> Self {
        self.statuses.push((Duration::from_millis(millis), status));
        self
    }

    /// Adds a file below the output directory.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), Ok(content.into()));
        self
    }

    /// Adds a file below the output directory that cannot be read.
    #[must_use]
    pub fn unreadable(mut self, path: &str, why: Error) -> Self {
        self.files.insert(path.into(), Err(why));
        self
    }

    /// Sets the error after the last status.
    #[must_use]
    pub fn lost(mut self, why: Error) -> Self {
        self.lost = Some(why);
        self
    }

    /// Sets the container's log.
    #[must_use]
    pub fn log(mut self, log: impl Into<String>) -> Self {
        self.log = log.into();
        self
    }
}

/// Pods that play scripts.
pub struct Memory {
    script: Box<dyn Fn(&PodSpec) -> Script + Send + Sync>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    created: Mutex<Vec<PodSpec>>,
    live: AtomicUsize,
    /// The pods that outlive their calls, by name: the script, and the time of creation.
    outliving: Mutex<HashMap<String, (Script, Instant)>>,
}

impl Shared {
    fn outliving(&self) -> MutexGuard<'_, HashMap<String, (Script, Instant)>> {
        self.outliving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Pods that each play the script that this function makes for them.
    pub fn new(script: impl Fn(&PodSpec) -> Script + Send + Sync + 'static) -> Self {
        Memory { script: Box::new(script), shared: Arc::default() }
    }

    /// The specs of all pods that were asked for, those that were refused among them.
    pub fn created(&self) -> Vec<PodSpec> {
        self.shared.created.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many pods exist now.
    pub fn live(&self) -> usize {
        self.shared.live.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("live", &self.live()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Pods for Memory {
    async fn create(&self, spec: PodSpec, identity: Identity) -> Result<Box<dyn Pod>, Error> {
        let keep = spec.keep;
        let Identity { name, outlives_call, .. } = identity;
        let pod = |name, (script, created), is_adopted| {
            let shared = self.shared.clone();
            Box::new(MemoryPod {
                name,
                script,
                next: 0,
                created,
                keep,
                outlives_call,
                is_adopted,
                is_live: true,
                shared,
            })
        };
        let mut outliving = self.shared.outliving();
        if let Some(found) = outliving.get(&name) {
            return Ok(pod(name, found.clone(), true));
        }
        let script = (self.script)(&spec);
        let number = {
            let mut created = self.shared.created.lock().unwrap_or_else(PoisonError::into_inner);
            created.push(spec);
            created.len()
        };
        if let Some(error) = script.refused {
            return Err(error);
        }
        self.shared.live.fetch_add(1, Ordering::SeqCst);
        let new = (script, Instant::now());
        if !outlives_call {
            return Ok(pod(format!("memory-{number}"), new, false));
        }
        outliving.insert(name.clone(), new.clone());
        Ok(pod(name, new, false))
    }
}

struct MemoryPod {
    name: String,
    script: Script,
    next: usize,
    created: Instant,
    keep: bool,
    outlives_call: bool,
    is_adopted: bool,
    is_live: bool,
    shared: Arc<Shared>,
}

impl MemoryPod {
    fn remove(&mut self) {
        let is_live = std::mem::take(&mut self.is_live);
        if self.keep || !is_live || self.outlives_call && self.shared.outliving().remove(&self.name).is_none() {
            return;
        }
        self.shared.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for MemoryPod {
    fn drop(&mut self) {
        if !self.outlives_call {
            self.remove();
        }
    }
}

#[async_trait]
impl Pod for MemoryPod {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    async fn changed(&mut self) -> Result<PodStatus, Error> {
        let Some((after, status)) = self.script.statuses.get(self.next) else {
            return match &self.script.lost {
                Some(error) => Err(error.clone()),
                None => std::future::pending().await,
            };
        };
        let due = self.created + *after;
        // A timer for a time that has passed would wait for the next full millisecond.
        if Instant::now() < due {
            tokio::time::sleep_until(due).await;
        }
        self.next += 1;
        Ok(status.clone())
    }

    async fn read_file(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.script.files.get(path) {
            None => Ok(None),
            Some(Ok(bytes)) if bytes.len() as u64 > limit => {
                Err(Error::TooLarge(Excess { size: bytes.len() as u64, limit }))
            }
            Some(file) => file.clone().map(Some),
        }
    }

    async fn tail_logs(&mut self, lines: u32) -> Result<String, Error> {
        let all: Vec<&str> = self.script.log.lines().collect();
        let skipped = all.len().saturating_sub(lines as usize);
        Ok(all.get(skipped..).unwrap_or_default().join("\n"))
    }

    async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error> {
        Ok(Box::pin(std::io::Cursor::new(self.script.log.clone().into_bytes())))
    }

    async fn delete(&mut self) -> Result<(), Error> {
        self.remove();
        Ok(())
    }
}
