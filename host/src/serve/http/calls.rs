//! The calls of HTTP clients, and the results of those calls that no client waits for.

use super::ServerOptions;
use crate::document::CallResult;
use crate::event::{Event, Events};
use crate::serve::metrics::{Metrics, Stages};
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

/// How long a result is kept.
const KEPT_FOR: Duration = Duration::from_secs(60 * 60);
/// The most results that are kept, and the most bytes of all of them. The oldest are dropped first.
const KEPT: (usize, usize) = (10_000, 256 * 1024 * 1024);

/// How a call ended.
#[derive(Clone)]
pub(super) enum Ended {
    Called(CallResult),
    Cancelled,
}

pub(super) enum Found {
    Running,
    Ended(Ended),
    Nothing,
}

/// All calls of a server. Cloning it shares them.
#[derive(Clone)]
pub(super) struct Calls {
    options: ServerOptions,
    results: Arc<Mutex<Results>>,
    running: TaskTracker,
    cancelled: CancellationToken,
}

#[derive(Default)]
struct Results {
    /// `None` while the call runs.
    by_id: HashMap<String, Option<Ended>>,
    /// The calls that have ended, the oldest first, with the bytes of their documents.
    kept: VecDeque<(String, Instant, usize)>,
    bytes: usize,
}

impl Calls {
    pub(super) fn new(options: ServerOptions) -> Self {
        let running = TaskTracker::new();
        running.close();
        Calls { options, results: Arc::default(), running, cancelled: CancellationToken::new() }
    }

    /// A slot for one more call, if there is one.
    pub(super) fn slot(&self) -> Option<Slot> {
        let ServerOptions { metrics, concurrency, .. } = &self.options;
        let most = self.options.runner().policy().max_calls.map_or(*concurrency, |most| most.get().min(*concurrency));
        metrics.call_started_within(most).then(|| Slot {
            metrics: metrics.clone(),
            started: Instant::now(),
            is_ended: false,
        })
    }

    /// Runs a call. Dropping the future cancels it.
    pub(super) async fn run(&self, app: &str, handler: &str, inputs: &str, slot: Slot) -> Ended {
        self.call(&Uuid::new_v4().to_string(), (app, handler), inputs, slot).await
    }

    /// Runs a call in the background; its result can be found by the id.
    pub(super) fn spawn(&self, app: String, handler: String, inputs: String, slot: Slot) -> String {
        let id = Uuid::new_v4().to_string();
        self.results().by_id.insert(id.clone(), None);
        let (calls, of) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let ended = calls.call(&of, (&app, &handler), &inputs, slot).await;
            calls.results().insert(of, ended);
        });
        id
    }

    pub(super) fn find(&self, id: &str) -> Found {
        let mut results = self.results();
        results.forget();
        match results.by_id.get(id) {
            None => Found::Nothing,
            Some(None) => Found::Running,
            Some(Some(ended)) => Found::Ended(ended.clone()),
        }
    }

    /// Returns when no call runs.
    pub(super) async fn ended(&self) {
        self.running.wait().await;
    }

    /// Cancels all calls, and those that are still to come.
    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    async fn call(&self, id: &str, (app, handler): (&str, &str), inputs: &str, slot: Slot) -> Ended {
        let _running = self.running.token();
        let span = tracing::info_span!("call", id, app, handler, pod = tracing::field::Empty);
        let work = async {
            let ended = tokio::select! {
                biased;
                () = self.cancelled.cancelled() => Ended::Cancelled,
                ended = self.observe((app, handler), inputs, &span) => ended,
            };
            slot.end(&ended);
            ended
        };
        work.instrument(span.clone()).await
    }

    /// Runs a call. Logs and counts its stages.
    async fn observe(&self, (app, handler): (&str, &str), inputs: &str, span: &tracing::Span) -> Ended {
        let (runner, metrics) = (self.options.runner(), &self.options.metrics);
        let (events, mut received) = Events::channel(false);
        let mut stages = Stages::start();
        let mut see = |event: &Event| {
            if let Event::Created { namespace, pod } = event {
                span.record("pod", format!("{namespace}/{pod}"));
            }
            if let Some((stage, took)) = stages.ended_by(event) {
                metrics.stage_ended(stage, took);
                tracing::debug!(stage = stage.name(), seconds = took.as_secs_f64(), "stage ended");
            }
        };
        let mut call = pin!(runner.call(runner.ctx().events(events), app, handler, inputs));
        let called = loop {
            tokio::select! {
                biased;
                Some(event) = received.recv() => see(&event),
                called = &mut call => break called,
            }
        };
        while let Ok(event) = received.try_recv() {
            see(&event);
        }
        Ended::Called(called)
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Results {
    fn insert(&mut self, id: String, ended: Ended) {
        let bytes = match &ended {
            Ended::Called(called) => called.text().len(),
            Ended::Cancelled => 0,
        };
        self.bytes += bytes;
        self.kept.push_back((id.clone(), Instant::now(), bytes));
        self.by_id.insert(id, Some(ended));
        self.forget();
    }

    /// Drops results that are too old or too many.
    fn forget(&mut self) {
        while let Some((id, since, bytes)) = self.kept.front() {
            let is_too_much = self.kept.len() > KEPT.0 || self.bytes > KEPT.1;
            if !is_too_much && since.elapsed() < KEPT_FOR {
                return;
            }
            self.bytes -= bytes;
            self.by_id.remove(id);
            self.kept.pop_front();
        }
    }
}

/// A call's right to run, counted in the metrics. It ends with the call; if the client has gone, it is dropped with the
/// call.
pub(super) struct Slot {
    metrics: Arc<Metrics>,
    started: Instant,
    is_ended: bool,
}

impl Slot {
    fn end(mut self, ended: &Ended) {
        match ended {
            Ended::Called(called) => self.count(called.outcome()),
            Ended::Cancelled => self.count("Cancelled"),
        }
    }

    fn count(&mut self, outcome: &str) {
        let took = self.started.elapsed();
        self.is_ended = true;
        self.metrics.call_ended(outcome, took);
        tracing::info!(outcome, seconds = took.as_secs_f64(), "call ended");
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.is_ended {
            self.count("Cancelled");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[tokio::test(start_paused = true)]
    async fn results_are_kept_for_an_hour_and_within_bounds() {
        let empty = CallResult::errored(SystemTime::now(), "").text().len();
        let called = |bytes| Ended::Called(CallResult::errored(SystemTime::now(), &"a".repeat(bytes - empty)));
        let mut results = Results::default();
        results.insert("a".into(), called(200 << 20));
        tokio::time::advance(KEPT_FOR / 2).await;
        results.insert("b".into(), called(50 << 20));
        assert_eq!((results.by_id.len(), results.bytes), (2, 250 << 20));
        results.insert("c".into(), called(10 << 20));
        assert!(!results.by_id.contains_key("a"));
        tokio::time::advance(KEPT_FOR / 2).await;
        results.forget();
        assert_eq!((results.by_id.len(), results.bytes), (2, 60 << 20));
        tokio::time::advance(KEPT_FOR / 2).await;
        results.forget();
        assert_eq!((results.by_id.len(), results.bytes), (0, 0));
    }
}
