//! Asking the queue for requests, and starting their calls.

use super::call;
use super::inner::Inner;
use super::queue::{self, Queue};
use super::slots;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Batch;
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the server keeps a pull open while there are no requests. After that, the next pull shows that this worker
/// still lives.
const PULL: Duration = Duration::from_secs(30);
/// The same while there are fewer slots than apps: a pull keeps slots from the other apps.
const PULL_IN_TURN: Duration = Duration::from_secs(1);

/// The requests of one app.
pub(super) struct Intake<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) app: &'a str,
    /// The free slots, shared by all apps.
    pub(super) free: Arc<Semaphore>,
    /// The calls that were started.
    pub(super) calls: &'a TaskTracker,
    /// Ends the calls without a word to anybody.
    pub(super) end: &'a CancellationToken,
    pub(super) shutdown: &'a CancellationToken,
}

/// A pull that is open, and the slots for what it brings.
struct Pull {
    batch: Batch,
    slots: OwnedSemaphorePermit,
    /// Changes when the connection that the pull was made on is lost.
    connections: watch::Receiver<u64>,
}

/// What a pull brings next.
enum Next {
    Request(Box<Message>),
    /// Nothing more. The next pull may bring something.
    Nothing,
    Failed(String),
    Shutdown,
}

impl Intake<'_> {
    /// Takes requests as slots become free, until the shutdown.
    pub(super) async fn run(self) {
        let mut pauses = queue::pauses();
        let mut consumer = None;
        while let Some(pulled) = self.shutdown.run_until_cancelled(self.pull(&mut consumer)).await {
            let error = match pulled {
                Ok(pull) => {
                    pauses = queue::pauses();
                    self.start_calls(pull).await.err()
                }
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                tracing::warn!(error, "the queue does not give out requests; trying again");
                consumer = None;
                self.shutdown.run_until_cancelled(queue::pause(&mut pauses)).await;
            }
        }
    }

    /// Asks for as many requests as there are free slots, but for no more than the app's share.
    async fn pull(&self, known: &mut Option<PullConsumer>) -> Result<Pull, String> {
        let apps = self.inner.apps.len().max(1);
        let share = self.inner.most_calls() / apps;
        let patience = if share == 0 { PULL_IN_TURN } else { PULL };
        let slots = slots::take(&self.free, share.max(1)).await?;
        let queue = &self.inner.queue;
        queue.connected().await;
        let connections = queue.connections();
        let consumer = match known {
            Some(consumer) => consumer,
            None => known.insert(queue.consumer(self.app).await.map_err(|error| error.to_string())?),
        };
        let batch = Queue::pull(consumer, slots.num_permits(), patience).await?;
        Ok(Pull { batch, slots, connections })
    }

    /// Starts a call for each request that comes, until the pull brings nothing more.
    async fn start_calls(&self, mut pull: Pull) -> Result<(), String> {
        loop {
            let message = match self.next(&mut pull).await {
                Next::Request(message) => *message,
                Next::Nothing => return Ok(()),
                Next::Failed(error) => return Err(error),
                Next::Shutdown => {
                    give_back(pull).await;
                    return Ok(());
                }
            };
            let Some(slot) = pull.slots.split(1) else {
                call::give_back(&message.split().1).await;
                return Ok(());
            };
            let (inner, end) = (self.inner.clone(), self.end.clone());
            self.calls.spawn(async move {
                end.run_until_cancelled(call::serve(&inner, message)).await;
                drop(slot);
            });
        }
    }

    async fn next(&self, pull: &mut Pull) -> Next {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Next::Shutdown,
            message = pull.batch.next() => match message {
                Some(Ok(message)) => Next::Request(message.into()),
                Some(Err(error)) => Next::Failed(error.to_string()),
                None => Next::Nothing,
            },
            _ = pull.connections.changed() => Next::Nothing,
        }
    }
}

/// Gives back the requests that have arrived and were not started.
async fn give_back(mut pull: Pull) {
    let mut unwanted = vec![];
    while let Some(Some(Ok(message))) = pull.batch.next().now_or_never() {
        unwanted.push(message.split().1);
    }
    drop(pull);
    join_all(unwanted.iter().map(call::give_back)).await;
}
