//! Serving a hops installation: its queue sends requests, the worker runs them and sends the results.
//!
//! A request goes through these files: `intake` (asks for requests while there are free `slots`) → `request` (what the
//! subject says, and which pod belongs to it) → `call` (from there to the acknowledgement). `queue` is the connection that
//! all of them use. `left_overs` deletes the pods of workers that ended in between.
//!
//! A request is acknowledged only when its result stands in the stream, and its pod is deleted only then. Until then, any
//! worker that gets the request again finds the pod by its name and adopts it: one request, one pod, one result.

mod call;
mod inner;
mod intake;
mod left_overs;
mod live;
mod options;
mod queue;
mod request;
mod slots;

pub use options::WorkerOptions;
pub use queue::QueueError;

use super::metrics::Metrics;
use crate::runner::Runner;
use futures::future::join_all;
use inner::Inner;
use intake::Intake;
use live::Live;
use queue::Queue;
use slots::Slots;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long calls that are left have to give their requests back to the queue.
const FAREWELL: Duration = Duration::from_secs(5);

/// A worker that is connected to its queue.
pub struct Worker {
    inner: Arc<Inner>,
}

impl Worker {
    /// Connects to the queue within half a minute. Each call begins with the runner that `runners` holds at that time.
    /// The requests that are served are those of the apps that it holds now.
    ///
    /// # Errors
    /// There is no queue, or none that this account can be served from.
    pub async fn connect(
        options: WorkerOptions,
        runners: watch::Receiver<Runner>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, QueueError> {
        let queue = Queue::connect(&options.url, &options.account, options.ack_wait).await?;
        let apps: Vec<String> = runners.borrow().plugins().apps().map(Into::into).collect();
        // What keeps a consumer from being created is an error now, and not a warning later.
        for app in &apps {
            queue.consumer(app).await?;
        }
        let inner = Inner {
            options,
            queue,
            apps,
            runners,
            metrics,
            live: Live::default(),
            sweep: Notify::new(),
            leave: CancellationToken::new(),
        };
        Ok(Worker { inner: Arc::new(inner) })
    }

    /// Serves requests until `shutdown`. Then it takes nothing new, waits for the calls that end within the drain
    /// time, and leaves the rest with their pods running to whoever serves the queue next.
    pub async fn run(&self, shutdown: CancellationToken) {
        let inner = &self.inner;
        let calls = TaskTracker::new();
        let end = CancellationToken::new();
        let _end = end.clone().drop_guard();
        let swept = inner.clone();
        let sweep_end = end.clone();
        tokio::spawn(async move { sweep_end.run_until_cancelled(left_overs::sweep(&swept)).await });

        let slots = Slots::new(inner);
        let free = slots.free();
        let intake = |app| Intake { inner, app, free: free.clone(), calls: &calls, end: &end, shutdown: &shutdown };
        let taking = join_all(inner.apps.iter().map(|app| intake(app).run()));
        let taking = async {
            tokio::select! {
                _ = taking => {}
                () = slots.follow_policy(inner) => {}
            }
        };
        inner.leave.run_until_cancelled(taking).await;
        calls.close();
        let running = inner.live.count();
        if running > 0 {
            tracing::info!(running, "draining");
        }
        let drained = tokio::time::timeout(inner.options.drain, calls.wait());
        if inner.leave.run_until_cancelled(drained).await.is_none_or(|drained| drained.is_err()) {
            tracing::warn!(left = inner.live.count(), "calls are left with their pods running, for the next worker");
            inner.leave.cancel();
            let _ = tokio::time::timeout(FAREWELL, calls.wait()).await;
        }
        inner.queue.flush().await;
    }

    /// Leaves all calls with their pods running, without waiting for any to end. [`run`](Self::run) returns soon after.
    pub fn stop_now(&self) {
        self.inner.leave.cancel();
    }

    /// Whether there is a connection to the queue now.
    pub fn is_connected(&self) -> bool {
        self.inner.queue.is_connected()
    }

    /// How many calls run now.
    pub fn in_flight(&self) -> usize {
        self.inner.live.count()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("options", &self.inner.options).finish_non_exhaustive()
    }
}
