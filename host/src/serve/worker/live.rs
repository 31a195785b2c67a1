//! The calls that run in this worker.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The calls that run in this worker, by the names of their pods.
#[derive(Default)]
pub(super) struct Live(Mutex<HashSet<String>>);

impl Live {
    pub(super) fn count(&self) -> usize {
        self.names().len()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names().contains(name)
    }

    /// Adds a call until the entry is dropped; `None` if the call runs already.
    pub(super) fn enter(&self, name: &str) -> Option<Entry<'_>> {
        self.names().insert(name.into()).then(|| Entry { live: self, name: name.into() })
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Entry<'a> {
    live: &'a Live,
    name: String,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.live.names().remove(&self.name);
    }
}
