//! The slots of a worker: each is the right of one call to run.

use super::inner::Inner;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// As many slots as the worker's options and the policy allow calls. A slot is free, kept for a request that was asked
/// for, or taken by a call.
pub(super) struct Slots {
    free: Arc<Semaphore>,
    /// All slots, the free ones and the others.
    count: usize,
}

impl Slots {
    pub(super) fn new(inner: &Inner) -> Self {
        let count = inner.most_calls();
        Slots { free: Arc::new(Semaphore::new(count)), count }
    }

    pub(super) fn free(&self) -> Arc<Semaphore> {
        self.free.clone()
    }

    /// Adds slots at once when the policy allows more calls, and removes slots as they become free when it allows fewer.
    /// Never returns.
    pub(super) async fn follow_policy(mut self, inner: &Inner) {
        let mut runners = inner.runners.clone();
        loop {
            runners.mark_unchanged();
            let wanted = inner.most_calls();
            self.free.add_permits(wanted.saturating_sub(self.count));
            self.count = self.count.max(wanted);
            tokio::select! {
                Ok(slot) = self.free.acquire(), if self.count > wanted => {
                    slot.forget();
                    self.count -= 1;
                }
                Ok(()) = runners.changed() => {}
                else => std::future::pending().await,
            }
        }
    }
}

/// Takes free slots, at most this many and at least one. Waits for the first. Those who wait get slots in the order in
/// which they came.
pub(super) async fn take(free: &Arc<Semaphore>, most: usize) -> Result<OwnedSemaphorePermit, String> {
    let mut taken = free.clone().acquire_owned().await.map_err(|error| error.to_string())?;
    while taken.num_permits() < most
        && let Ok(slot) = free.clone().try_acquire_owned()
    {
        taken.merge(slot);
    }
    Ok(taken)
}
