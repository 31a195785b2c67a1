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

use crate::app::App;
use crate::metrics::Metrics;
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
    apps: watch::Receiver<App>,
    metrics: Arc<Metrics>,
    live: Live,
    /// Wakes the search for left-overs.
    sweep: Notify,
    /// Comes when calls are to be left with their pods running.
    leave: CancellationToken,
}

impl Inner {
    fn app(&self) -> App {
        self.apps.borrow().clone()
    }
}

impl Worker {
    /// Connects to the queue, for which it takes at most half a minute. Each call begins with what `apps` holds then.
    ///
    /// # Errors
    /// There is no queue, or none that this account can be served from.
    pub async fn connect(
        options: WorkerOptions,
        apps: watch::Receiver<App>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, QueueError> {
        let queue = Queue::connect(&options.url, &options.account, options.ack_wait).await?;
        // So that what keeps it from being made is told now.
        queue.consumer().await?;
        Ok(Worker {
            inner: Arc::new(Inner {
                options,
                queue,
                apps,
                metrics,
                live: Live::default(),
                sweep: Notify::new(),
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

        inner.leave.run_until_cancelled(take(inner, &calls, &end, &shutdown)).await;
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

/// Takes requests as there are places for calls, until `shutdown`.
async fn take(inner: &Arc<Inner>, calls: &TaskTracker, end: &CancellationToken, shutdown: &CancellationToken) {
    let places = Arc::new(Semaphore::new(inner.options.concurrency));
    let mut pauses = pauses();
    let mut consumer = None;
    loop {
        let asked = shutdown.run_until_cancelled(ask(inner, &mut consumer, &places)).await;
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

/// Requests that were asked for, and the places for their calls.
struct Asked {
    batch: Batch,
    free: OwnedSemaphorePermit,
    connections: watch::Receiver<u64>,
}

/// Asks for as many requests as there are places, as soon as there is one.
async fn ask(inner: &Inner, known: &mut Option<PullConsumer>, places: &Arc<Semaphore>) -> Result<Asked, String> {
    let free = free(inner, places).await?;
    let queue = &inner.queue;
    queue.connected().await;
    let connections = queue.connections();
    let consumer = match known {
        Some(consumer) => consumer,
        None => known.insert(queue.consumer().await.map_err(|error| error.to_string())?),
    };
    Ok(Asked { batch: Queue::pull(consumer, free.num_permits()).await?, free, connections })
}

/// The places that are free and that the policy lets be taken: what it does not is left to other workers.
async fn free(inner: &Inner, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, String> {
    let words = |error: AcquireError| error.to_string();
    let mut apps = inner.apps.clone();
    let mut free = places.clone().acquire_owned().await.map_err(words)?;
    loop {
        while let Ok(place) = places.clone().try_acquire_owned() {
            free.merge(place);
        }
        let running = inner.options.concurrency.saturating_sub(free.num_permits());
        let most = apps.borrow_and_update().policy.max_calls.map_or(usize::MAX, NonZeroUsize::get);
        let room = most.saturating_sub(running).min(free.num_permits());
        if let Some(taken) = free.split(room).filter(|_| room > 0) {
            return Ok(taken);
        }
        tokio::select! {
            place = places.clone().acquire_owned() => free.merge(place.map_err(words)?),
            Ok(()) = apps.changed() => {}
        }
    }
}

/// Gives each request that comes its place, until all have come or none will any more.
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
        let Some(place) = free.split(1) else { return Ok(()) };
        let (inner, end) = (inner.clone(), end.clone());
        calls.spawn(async move {
            let _place = place;
            end.run_until_cancelled(call::serve(&inner, message)).await;
        });
    }
}
