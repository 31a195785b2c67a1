//! One request, from its delivery to its acknowledgement.

use super::Inner;
use super::queue::{Delivery, pause, pauses};
use super::request::Request;
use crate::document::CallResult;
use crate::event::{Event, Events};
use crate::imports::pods::Retained;
use crate::runner::UNKNOWN_HANDLER;
use crate::serve::metrics::{Metrics, Stages};
use async_nats::jetstream::AckKind;
use async_nats::jetstream::message::{Acker, Message};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{Instrument, Span, field};

/// How a request is answered that nobody knows what to do with; somebody may have changed the consumer's filter.
const UNREADABLE: AckKind = AckKind::Nak(Some(Duration::from_secs(60)));

/// The time in which the queue hears that this worker does not ask for requests any more.
const UNASKED: Duration = Duration::from_millis(100);

/// The calls that run in this worker, by the names of their pods.
#[derive(Default)]
pub(super) struct Live(Mutex<HashSet<String>>);

impl Live {
    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.names().len()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names().contains(name)
    }

    fn enter(&self, name: &str) -> Option<Entry<'_>> {
        self.names().insert(name.into()).then(|| Entry { live: self, name: name.into() })
    }
}

struct Entry<'a> {
    live: &'a Live,
    name: String,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.live.names().remove(&self.name);
    }
}

/// Counts a call, and tells how it ended.
struct Count<'a> {
    metrics: &'a Metrics,
    start: Instant,
    outcome: String,
}

impl<'a> Count<'a> {
    fn start(metrics: &'a Metrics) -> Self {
        metrics.call_started();
        tracing::info!("call started");
        Count { metrics, start: Instant::now(), outcome: "Left".into() }
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        self.metrics.call_ended(&self.outcome, took);
        tracing::info!(outcome = self.outcome, ms = took.as_millis(), "call ended");
    }
}

/// How a request is done with.
enum Answer {
    /// Its result stands in the stream; the pod is not needed any more.
    Delivered(Retained),
    /// No worker can ever answer it.
    Never(Retained),
}

/// Sees a request through, unless the worker has to leave it to others.
pub(super) async fn serve(inner: &Inner, message: Message) {
    let (delivered, age) = match message.info() {
        Ok(info) => (info.delivered, SystemTime::from(info.published).elapsed().unwrap_or_default()),
        Err(_) => return,
    };
    let (message, acker) = message.split();
    let Some(request) = Request::parse(&inner.options.account, &message.subject) else {
        tracing::warn!(subject = %message.subject, "this subject is none of a request; left for others");
        return answer(&acker, UNREADABLE).await;
    };
    let Some(_entry) = inner.live.enter(&request.identity().name) else {
        // Its heartbeats did not arrive, but it runs, and answers for both.
        tracing::debug!(sequence = request.sequence, message = request.message, "delivered again while its call runs");
        return;
    };
    let Request { sequence, message: id, .. } = &request;
    let span = tracing::info_span!("call", sequence, message = id, pod = field::Empty, namespace = field::Empty);
    let work = async {
        if delivered > 1 {
            inner.metrics.redelivered();
        }
        let is_new = delivered <= 1 && age < inner.options.ack_wait;
        if !is_new && inner.queue.holds(&request.notify()).await {
            tracing::info!("its result was delivered before");
            inner.sweep.notify_one();
            return Answer::Delivered(Retained::default());
        }
        run(inner, &request, &message.payload).await
    };
    let seen_through = async {
        let answered = tokio::select! {
            answered = work => Some(answered),
            () = inner.queue.heartbeats(&acker) => None,
            () = inner.leave.cancelled() => None,
        };
        match answered {
            Some(Answer::Delivered(pods)) => {
                tokio::join!(inner.queue.acknowledge(&acker), delete(&pods));
            }
            Some(Answer::Never(pods)) => {
                tokio::join!(answer(&acker, AckKind::Term), delete(&pods));
            }
            None => give_back(&acker).await,
        }
    };
    seen_through.instrument(span).await;
}

async fn delete(pods: &Retained) {
    if let Err(error) = pods.delete().await {
        tracing::warn!(%error, "the pod is not deleted yet; it will be with the left-overs");
    }
}

async fn answer(acker: &Acker, kind: AckKind) {
    if let Err(error) = acker.ack_with(kind).await {
        tracing::debug!(%error, "the queue was not told; it will deliver the request again");
    }
}

/// Has a request given to another worker at once.
pub(super) async fn give_back(acker: &Acker) {
    // Else the queue could give it to this worker again, which does not ask any more.
    tokio::time::sleep(UNASKED).await;
    answer(acker, AckKind::Nak(None)).await;
}

async fn run(inner: &Inner, request: &Request, payload: &[u8]) -> Answer {
    let mut count = Count::start(&inner.metrics);
    let (mut called, pods) = match std::str::from_utf8(payload) {
        Ok(inputs) => call(inner, request, inputs).await,
        Err(error) => {
            let error = format!("InvalidInputs: the inputs are no UTF-8 from byte {} on", error.valid_up_to());
            (CallResult::errored(SystemTime::now(), &error), Retained::default())
        }
    };
    called.outcome().clone_into(&mut count.outcome);
    if count.outcome == UNKNOWN_HANDLER {
        return Answer::Never(pods);
    }
    if let Delivery::TooLarge { limit } = inner.queue.deliver(&request.notify(), called.text()).await {
        let error = format!(
            "ResultTooLarge: the result is {} bytes with its document, more than the queue's limit of {limit} bytes",
            called.text().len()
        );
        called = called.replaced(&error);
        called.outcome().clone_into(&mut count.outcome);
        if let Delivery::TooLarge { .. } = inner.queue.deliver(&request.notify(), called.text()).await {
            tracing::error!(limit, "the queue takes no results at all; raise its limit");
            return Answer::Never(pods);
        }
    }
    Answer::Delivered(pods)
}

/// Calls the plugin, again and again while the cluster is out of reach: that is no fault of the call's, and its pod
/// will be found.
async fn call(inner: &Inner, request: &Request, inputs: &str) -> (CallResult, Retained) {
    let mut pauses = pauses();
    loop {
        let runner = inner.runner();
        let (events, heard) = Events::channel(false);
        let pods = Retained::default();
        let ctx = runner.ctx().identity(request.identity()).retain(pods.clone()).events(events);
        let call = runner.call(ctx, &request.app, &request.handler, inputs);
        let (called, ()) = tokio::join!(call, listen(&inner.metrics, heard));
        if called.outcome() != "ClusterUnavailable" {
            return (called, pods);
        }
        tracing::warn!("the cluster is out of reach; the call is tried on");
        drop(pods);
        pause(&mut pauses).await;
    }
}

/// Tells of a call's stages, each as it ends, until the call does.
async fn listen(metrics: &Metrics, mut events: UnboundedReceiver<Event>) {
    let mut stages = Stages::start();
    while let Some(event) = events.recv().await {
        match &event {
            Event::Created { namespace, pod } => {
                Span::current().record("namespace", namespace).record("pod", pod);
            }
            Event::Adopted => {
                metrics.adopted();
                tracing::info!("pod adopted");
            }
            _ => {}
        }
        if let Some((stage, took)) = stages.ended_by(&event) {
            metrics.stage_ended(stage, took);
            tracing::info!(stage = stage.name(), ms = took.as_millis(), "stage ended");
        }
    }
}
