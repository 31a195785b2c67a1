//! One request, from its delivery to its acknowledgement.

use super::inner::Inner;
use super::queue::{Delivery, pause, pauses};
use super::request::Request;
use crate::document::CallResult;
use crate::event::{Event, Events};
use crate::imports::pods::Retained;
use crate::runner::UNKNOWN_HANDLER;
use crate::serve::metrics::{Metrics, Stages};
use async_nats::jetstream::AckKind;
use async_nats::jetstream::message::{Acker, Message};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{Instrument, Span, field};

/// The answer to a message whose subject is not that of a request; somebody may have changed the consumer's filter.
const UNREADABLE: AckKind = AckKind::Nak(Some(Duration::from_secs(60)));

/// The time in which the queue learns that this worker does not ask for requests any more.
const UNASKED: Duration = Duration::from_millis(100);

/// Counts a call, and logs how it ended.
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

/// How a request ends. Its pods are not needed any more.
enum End {
    /// Its result stands in the stream.
    Delivered(Retained),
    /// No worker can ever answer it.
    Unanswerable(Retained),
}

/// A request as the queue delivers it.
struct Delivered {
    request: Request,
    message: async_nats::Message,
    acker: Acker,
    /// Whether the queue has delivered it before, to whomever.
    is_redelivered: bool,
    /// Whether another worker may have had it since it came into the stream.
    may_be_answered: bool,
}

/// Answers a request, unless the worker has to leave it to others.
pub(super) async fn serve(inner: &Inner, message: Message) {
    let Ok(info) = message.info() else { return };
    let is_redelivered = info.delivered > 1;
    let age = SystemTime::from(info.published).elapsed().unwrap_or_default();
    let may_be_answered = is_redelivered || age >= inner.options.ack_wait;
    let (message, acker) = message.split();
    let Some(request) = Request::parse(&inner.options.account, &message.subject) else {
        tracing::warn!(subject = %message.subject, "this subject is not that of a request; left for others");
        return answer(&acker, UNREADABLE).await;
    };
    let Some(_entry) = inner.live.enter(&request.identity().name) else {
        // Its heartbeats did not arrive. The call that runs answers for both deliveries.
        tracing::debug!(sequence = request.sequence, message = request.message, "delivered again while its call runs");
        return;
    };
    let Request { sequence, message: id, .. } = &request;
    let span = tracing::info_span!("call", sequence, message = id, pod = field::Empty, namespace = field::Empty);
    let delivered = Delivered { request: request.clone(), message, acker, is_redelivered, may_be_answered };
    see_through(inner, &delivered).instrument(span).await;
}

async fn see_through(inner: &Inner, delivered: &Delivered) {
    let acker = &delivered.acker;
    let end = tokio::select! {
        end = work(inner, delivered) => Some(end),
        () = inner.queue.heartbeats(acker) => None,
        () = inner.leave.cancelled() => None,
    };
    match end {
        Some(End::Delivered(pods)) => {
            tokio::join!(inner.queue.acknowledge(acker), delete(&pods));
        }
        Some(End::Unanswerable(pods)) => {
            tokio::join!(answer(acker, AckKind::Term), delete(&pods));
        }
        None => give_back(acker).await,
    }
}

async fn delete(pods: &Retained) {
    if let Err(error) = pods.delete().await {
        tracing::warn!(%error, "the pod is not deleted yet; it will be with the left-overs");
    }
}

async fn answer(acker: &Acker, kind: AckKind) {
    if let Err(error) = acker.ack_with(kind).await {
        tracing::debug!(%error, "the answer did not reach the queue, which will deliver the request again");
    }
}

/// Gives a request back, so that the queue delivers it to another worker at once.
pub(super) async fn give_back(acker: &Acker) {
    // Without the pause, the queue could deliver it to this worker, which does not ask any more.
    tokio::time::sleep(UNASKED).await;
    answer(acker, AckKind::Nak(None)).await;
}

/// Runs the request's call and delivers the result, unless the result stands already.
async fn work(inner: &Inner, delivered: &Delivered) -> End {
    let Delivered { request, message, is_redelivered, may_be_answered, .. } = delivered;
    if *is_redelivered {
        inner.metrics.redelivered();
    }
    if *may_be_answered && inner.queue.holds(&request.notify()).await {
        tracing::info!("its result was delivered before");
        inner.sweep.notify_one();
        return End::Delivered(Retained::default());
    }
    let mut count = Count::start(&inner.metrics);
    let (result, pods) = match std::str::from_utf8(&message.payload) {
        Ok(inputs) => call(inner, request, inputs).await,
        Err(error) => {
            let error = format!("InvalidInputs: the inputs are not UTF-8 from byte {} on", error.valid_up_to());
            (CallResult::errored(SystemTime::now(), &error), Retained::default())
        }
    };
    result.outcome().clone_into(&mut count.outcome);
    if count.outcome == UNKNOWN_HANDLER {
        return End::Unanswerable(pods);
    }
    match deliver(inner, request, result).await {
        Some(outcome) => {
            count.outcome = outcome;
            End::Delivered(pods)
        }
        None => End::Unanswerable(pods),
    }
}

/// Puts a result into the stream, or an error in its place if the queue does not take it. Returns the outcome of what
/// stands there; `None` if the queue takes not even the error.
async fn deliver(inner: &Inner, request: &Request, result: CallResult) -> Option<String> {
    let subject = request.notify();
    let Delivery::TooLarge { limit } = inner.queue.deliver(&subject, result.text()).await else {
        return Some(result.outcome().into());
    };
    let error = format!(
        "ResultTooLarge: the result is {} bytes with its document, more than the queue's limit of {limit} bytes",
        result.text().len()
    );
    let result = result.replaced(&error);
    if let Delivery::TooLarge { .. } = inner.queue.deliver(&subject, result.text()).await {
        tracing::error!(limit, "the queue takes no results at all; raise its limit");
        return None;
    }
    Some(result.outcome().into())
}

/// Calls the plugin, again and again while the cluster is out of reach: that is not the call's fault, and a pod that it
/// has already is found again.
async fn call(inner: &Inner, request: &Request, inputs: &str) -> (CallResult, Retained) {
    let mut pauses = pauses();
    loop {
        let runner = inner.runner();
        let (events, received) = Events::channel(false);
        let pods = Retained::default();
        let ctx = runner.ctx().identity(request.identity()).retain(pods.clone()).events(events);
        let call = runner.call(ctx, &request.app, &request.handler, inputs);
        let (result, ()) = tokio::join!(call, observe(&inner.metrics, received));
        if result.outcome() != "ClusterUnavailable" {
            return (result, pods);
        }
        tracing::warn!("the cluster is out of reach; the call is tried again");
        drop(pods);
        pause(&mut pauses).await;
    }
}

/// Logs and counts the stages of a call as they end, until the call does.
async fn observe(metrics: &Metrics, mut events: UnboundedReceiver<Event>) {
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
