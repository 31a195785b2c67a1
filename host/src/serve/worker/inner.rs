//! What the parts of a worker share.

use super::live::Live;
use super::options::WorkerOptions;
use super::queue::Queue;
use crate::runner::Runner;
use crate::serve::metrics::Metrics;
use std::num::NonZeroUsize;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// What the parts of a worker share.
pub(super) struct Inner {
    pub(super) options: WorkerOptions,
    pub(super) queue: Queue,
    /// The apps whose requests are served.
    pub(super) apps: Vec<String>,
    pub(super) runners: watch::Receiver<Runner>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) live: Live,
    /// Wakes the search for left-over pods.
    pub(super) sweep: Notify,
    /// Is cancelled when calls are to be left with their pods running.
    pub(super) leave: CancellationToken,
}

impl Inner {
    /// The runner that calls begin with now.
    pub(super) fn runner(&self) -> Runner {
        self.runners.borrow().clone()
    }

    /// The most calls that may run now, by the options and by the policy.
    pub(super) fn most_calls(&self) -> usize {
        let by_policy = self.runners.borrow().policy().max_calls.map_or(usize::MAX, NonZeroUsize::get);
        self.options.concurrency.min(by_policy).min(Semaphore::MAX_PERMITS)
    }
}
