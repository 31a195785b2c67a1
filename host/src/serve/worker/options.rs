//! What a worker is told.

use std::fmt;
use std::time::Duration;

/// Which queue to serve, and how.
#[derive(Clone)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// The queue's address with the user and password in it: `nats://ACCOUNT:PASSWORD@HOST:4222`.
    pub url: String,
    /// The account whose requests are served.
    pub account: String,
    /// The most calls that run at a time. The rest stays in the queue.
    pub concurrency: usize,
    /// How long calls have to end once the worker is to stop.
    pub drain: Duration,
    /// How long the queue waits for a sign of life before it gives a request to another worker.
    pub ack_wait: Duration,
}

impl WorkerOptions {
    /// This queue, with 1,000 calls at a time, 20 s to drain and a minute of ack wait.
    pub fn new(url: impl Into<String>, account: impl Into<String>) -> Self {
        WorkerOptions {
            url: url.into(),
            account: account.into(),
            concurrency: 1000,
            drain: Duration::from_secs(20),
            ack_wait: Duration::from_secs(60),
        }
    }
}

/// Without the address, which has the password in it.
impl fmt::Debug for WorkerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerOptions")
            .field("account", &self.account)
            .field("concurrency", &self.concurrency)
            .field("drain", &self.drain)
            .field("ack_wait", &self.ack_wait)
            .finish_non_exhaustive()
    }
}
