//! Serving a hops installation: its queue sends requests, the worker runs them and sends the results.
//!
//! A request goes through these files: `queue` (a connection that delivers it) → `request` (what its subject says,
//! and which pod is its) → `call` (from there to the acknowledgement). `left_overs` looks after the pods of workers that were ended in between.
//!
//! A request is acknowledged only when its result stands in the stream, and its pod is deleted only then. Until then
//! whoever gets the request next, be it this worker or another, finds the pod by its name and adopts it: one request,
//! one pod, one result.

mod call;
mod left_overs;
mod queue;
mod request;

pub use queue::QueueError;

use super::metrics::Metrics;
use crate::runner::Runner;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Batch;
use call::Live;
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use queue::{Queue, pause, pauses};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long calls that are left have to say so to the queue.
const FAREWELL: Duration = Duration::from_secs(5);

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
    /// How long calls have to end when the worker is to stop.
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

/// A worker that is connected to its queue.
pub struct Worker {
    inner: Arc<Inner>,
}

struct Inner {
    options: WorkerOptions,
    queue: Queue,
    /// The apps whose requests are served.
    apps: Vec<String>,
    runners: watch::Receiver<Runner>,
    metrics: Arc<Metrics>,
    live: Live,
    /// Wakes the search for left-overs.
    sweep: Notify,
    /// Wakes those who wait for a call to end.
    ended: Notify,
    /// Comes when calls are to be left with their pods running.
    leave: CancellationToken,
}

impl Inner {
    fn runner(&self) -> Runner {
        self.runners.borrow().clone()
    }
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
        Ok(Worker {
            inner: Arc::new(Inner {
                options,
                queue,
                apps,
                runners,
                metrics,
                live: Live::default(),
                sweep: Notify::new(),
                ended: Notify::new(),
                leave: CancellationToken::new(),
            }),
        })
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

        let slots = Arc::new(Semaphore::new(inner.options.concurrency));
        let taking = inner.apps.iter().map(|app| take(inner, app, &slots, &calls, &end, &shutdown));
        inner.leave.run_until_cancelled(join_all(taking)).await;
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

    /// Whether there is a connection to the queue at present.
    pub fn is_connected(&self) -> bool {
        self.inner.queue.is_connected()
    }

    /// How many calls run at present.
    pub fn in_flight(&self) -> usize {
        self.inner.live.count()
    }
}

/// Takes an app's requests as there are slots for calls, until `shutdown`.
async fn take(
    inner: &Arc<Inner>,
    app: &str,
    slots: &Arc<Semaphore>,
    calls: &TaskTracker,
    end: &CancellationToken,
    shutdown: &CancellationToken,
) {
    let mut pauses = pauses();
    let mut consumer = None;
    loop {
        let asked = shutdown.run_until_cancelled(ask(inner, app, &mut consumer, slots)).await;
        let taken = match asked {
            None => return,
            Some(Ok(asked)) => {
                pauses = queue::pauses();
                take_asked(inner, asked, calls, end, shutdown).await
            }
            Some(Err(error)) => Err(error),
        };
        if let Err(error) = taken {
            tracing::warn!(error, "the queue does not give out requests; trying on");
            consumer = None;
            shutdown.run_until_cancelled(pause(&mut pauses)).await;
        }
    }
}

/// Requests that were asked for, and the slots for their calls.
struct Asked {
    batch: Batch,
    free: OwnedSemaphorePermit,
    connections: watch::Receiver<u64>,
}

/// Asks for as many of an app's requests as there are slots, as soon as there is one.
async fn ask(
    inner: &Inner,
    app: &str,
    known: &mut Option<PullConsumer>,
    slots: &Arc<Semaphore>,
) -> Result<Asked, String> {
    let free = free(inner, slots).await?;
    let queue = &inner.queue;
    queue.connected().await;
    let connections = queue.connections();
    let consumer = match known {
        Some(consumer) => consumer,
        None => known.insert(queue.consumer(app).await.map_err(|error| error.to_string())?),
    };
    Ok(Asked { batch: Queue::pull(consumer, free.num_permits()).await?, free, connections })
}

/// The free slots that the policy lets this worker use for one app, at least one. Requests that are asked for hold their
/// slots until they come, so each app gets no more than its share.
async fn free(inner: &Inner, slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, String> {
    let words = |error: AcquireError| error.to_string();
    let mut runners = inner.runners.clone();
    let share = (inner.options.concurrency / inner.apps.len().max(1)).max(1);
    loop {
        // An end after this line wakes it, so none is missed.
        let ended = inner.ended.notified();
        let mut free = slots.clone().acquire_owned().await.map_err(words)?;
        while let Ok(slot) = slots.clone().try_acquire_owned() {
            free.merge(slot);
        }
        let running = inner.options.concurrency.saturating_sub(free.num_permits());
        let most = runners.borrow_and_update().policy().max_calls.map_or(usize::MAX, NonZeroUsize::get);
        let room = most.saturating_sub(running).min(free.num_permits()).min(share);
        if let Some(taken) = free.split(room).filter(|_| room > 0) {
            return Ok(taken);
        }
        // The policy allows fewer calls than there are slots. That changes when a call ends or the policy does.
        drop(free);
        tokio::select! {
            () = ended => {}
            Ok(()) = runners.changed() => {}
        }
    }
}

/// Gives each request that comes its slot, until all have come or no more will.
async fn take_asked(
    inner: &Arc<Inner>,
    asked: Asked,
    calls: &TaskTracker,
    end: &CancellationToken,
    shutdown: &CancellationToken,
) -> Result<(), String> {
    let Asked { mut batch, mut free, mut connections } = asked;
    loop {
        let message = tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                let mut unwanted = vec![];
                while let Some(Some(Ok(message))) = batch.next().now_or_never() {
                    unwanted.push(message.split().1);
                }
                drop(batch);
                join_all(unwanted.iter().map(call::give_back)).await;
                return Ok(());
            }
            message = batch.next() => message,
            _ = connections.changed() => return Ok(()),
        };
        let message = match message {
            None => return Ok(()),
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(error.to_string()),
        };
        let Some(slot) = free.split(1) else { return Ok(()) };
        let (inner, end) = (inner.clone(), end.clone());
        calls.spawn(async move {
            end.run_until_cancelled(call::serve(&inner, message)).await;
            drop(slot);
            inner.ended.notify_waiters();
        });
    }
}
