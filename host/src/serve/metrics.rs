//! Counters and timers of calls, in the text format that Prometheus reads.

use crate::event::Event;
use crate::pods::ContainerState;
#[cfg(feature = "kube")]
use crate::pods::kube::ObserveRequests;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The buckets: from a call that ends at once on a warm node to one that takes an hour.
const SECONDS: [f64; 14] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// The most outcomes that are counted separately. A plugin may invent any number.
const MOST_OUTCOMES: usize = 100;

/// The metrics of a process, shared by everything that runs calls in it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Family<Outcome, Counter>,
    outcomes: Mutex<BTreeSet<String>>,
    durations: Family<StageLabel, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    adopted: Counter,
    redelivered: Counter,
    api_requests: Family<Code, Counter>,
    api_retries: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: Stage,
}

/// A part of a call's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Until the pod is created.
    Create,
    /// Until the container runs: scheduling, pulling, starting.
    Start,
    /// Until the container has ended.
    Run,
    /// Until the result is read.
    Fetch,
    /// The whole call.
    Total,
}

impl Stage {
    /// The stage's name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Create => "create",
            Stage::Start => "start",
            Stage::Run => "run",
            Stage::Fetch => "fetch",
            Stage::Total => "total",
        }
    }
}

impl EncodeLabelValue for Stage {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hops");
        let calls = Family::default();
        let durations = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        let (in_flight, adopted, redelivered) = (Gauge::default(), Counter::default(), Counter::default());
        // `_total` is added to the names of counters when they are written.
        registry.register("calls", "Calls that have ended, by the first word of their error", calls.clone());
        registry.register("call_duration_seconds", "Time that calls took, by stage", durations.clone());
        registry.register("calls_in_flight", "Calls that run now", in_flight.clone());
        registry.register("calls_adopted", "Calls that found their pod from an earlier run", adopted.clone());
        registry.register("requests_redelivered", "Requests that the queue has sent again", redelivered.clone());
        let (api_requests, api_retries) = (Family::default(), Counter::default());
        registry.register(
            "api_requests",
            "Requests to the API server without the watch, by status",
            api_requests.clone(),
        );
        registry.register("api_retries", "Requests to the API server that were tried again", api_retries.clone());
        Metrics {
            registry,
            calls,
            outcomes: Mutex::default(),
            durations,
            in_flight,
            adopted,
            redelivered,
            api_requests,
            api_retries,
        }
    }
}

impl Metrics {
    /// A call has begun.
    pub fn call_started(&self) {
        self.in_flight.inc();
    }

    /// A call has begun, unless `limit` calls run already. Returns whether it has.
    pub fn call_started_within(&self, limit: usize) -> bool {
        let before = self.in_flight.inc();
        let is_within = usize::try_from(before).is_ok_and(|before| before < limit);
        if !is_within {
            self.in_flight.dec();
        }
        is_within
    }

    /// A call has ended; `outcome` is a result's stable first word, or a word for a call that has no result.
    pub fn call_ended(&self, outcome: &str, took: Duration) {
        self.in_flight.dec();
        let outcome = if self.is_counted_separately(outcome) { outcome } else { "Other" };
        self.calls.get_or_create_owned(&Outcome { outcome: outcome.into() }).inc();
        self.stage_ended(Stage::Total, took);
    }

    fn is_counted_separately(&self, outcome: &str) -> bool {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.contains(outcome) || outcomes.len() < MOST_OUTCOMES && outcomes.insert(outcome.into())
    }

    /// A stage of a call has ended.
    pub fn stage_ended(&self, stage: Stage, took: Duration) {
        self.durations.get_or_create_owned(&StageLabel { stage }).observe(took.as_secs_f64());
    }

    /// A call has found its pod from an earlier run.
    pub fn adopted(&self) {
        self.adopted.inc();
    }

    /// A request has been delivered more than once.
    pub fn redelivered(&self) {
        self.redelivered.inc();
    }

    /// The API server has answered with this status: `2xx`, the code of an error, or `none` when no answer came.
    pub fn api_answered(&self, code: &str) {
        self.api_requests.get_or_create_owned(&Code { code: code.into() }).inc();
    }

    /// A request to the API server is tried again.
    pub fn api_retried(&self) {
        self.api_retries.inc();
    }

    /// All metrics, as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(feature = "kube")]
impl ObserveRequests for Metrics {
    fn answered(&self, code: &str) {
        self.api_answered(code);
    }

    fn retried(&self) {
        self.api_retried();
    }
}

/// Finds out from a call's events which of its stages have ended.
#[derive(Debug)]
pub struct Stages {
    stage: Option<Stage>,
    since: Instant,
}

impl Stages {
    /// For a call that begins now.
    pub fn start() -> Self {
        Stages { stage: Some(Stage::Create), since: Instant::now() }
    }

    /// The stage that this event ends, and how long it took.
    pub fn ended_by(&mut self, event: &Event) -> Option<(Stage, Duration)> {
        let ended = self.stage?;
        let next = match (ended, event) {
            (Stage::Create, Event::Created { .. }) => Some(Stage::Start),
            (Stage::Start, Event::Status(status)) if status.main == ContainerState::Running => Some(Stage::Run),
            (Stage::Start | Stage::Run, Event::Status(status))
                if matches!(status.main, ContainerState::Terminated(_)) =>
            {
                Some(Stage::Fetch)
            }
            (Stage::Fetch, Event::Deleting) => None,
            _ => return None,
        };
        self.stage = next;
        let now = Instant::now();
        Some((ended, now.duration_since(std::mem::replace(&mut self.since, now))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::PodStatus;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.call_started();
        metrics.call_started();
        assert!(metrics.call_started_within(3) && !metrics.call_started_within(3));
        metrics.call_ended("Completed", Duration::from_millis(700));
        metrics.call_ended("OOMKilled", Duration::from_secs(9));
        metrics.adopted();
        metrics.redelivered();
        metrics.answered("2xx");
        metrics.retried();
        let text = metrics.encode();
        for line in [
            "# TYPE hops_calls counter",
            r#"hops_calls_total{outcome="Completed"} 1"#,
            r#"hops_calls_total{outcome="OOMKilled"} 1"#,
            "hops_calls_in_flight 1",
            "hops_calls_adopted_total 1",
            "hops_requests_redelivered_total 1",
            r#"hops_api_requests_total{code="2xx"} 1"#,
            "hops_api_retries_total 1",
            r#"hops_call_duration_seconds_count{stage="total"} 2"#,
            r#"hops_call_duration_seconds_bucket{le="1.0",stage="total"} 1"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_plugin_that_invents_outcomes_does_not_fill_the_memory() {
        let metrics = Metrics::default();
        for number in 0..1000 {
            metrics.call_ended(&format!("Word{number}"), Duration::ZERO);
        }
        metrics.call_ended("Word0", Duration::ZERO);
        let text = metrics.encode();
        assert_eq!(text.matches("hops_calls_total{").count(), MOST_OUTCOMES + 1);
        for line in [r#"hops_calls_total{outcome="Word0"} 2"#, r#"hops_calls_total{outcome="Other"} 900"#] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn each_stage_ends_once() {
        let created = Event::Created { namespace: "a".into(), pod: "b".into() };
        let status = Event::Status;
        let events = [
            created.clone(),
            status(PodStatus::waiting("ContainerCreating", "")),
            status(PodStatus::running()),
            status(PodStatus::running()),
            status(PodStatus::exited(0, "", "")),
            status(PodStatus::exited(0, "", "")),
            Event::Reading { path: "a".into() },
            Event::Deleting,
            Event::Deleting,
        ];
        let mut stages = Stages::start();
        let ended: Vec<Stage> = events.iter().filter_map(|event| Some(stages.ended_by(event)?.0)).collect();
        assert_eq!(ended, [Stage::Create, Stage::Start, Stage::Run, Stage::Fetch]);

        let mut stages = Stages::start();
        let quick = [created, status(PodStatus::exited(0, "", "")), Event::Deleting];
        let ended: Vec<Stage> = quick.iter().filter_map(|event| Some(stages.ended_by(event)?.0)).collect();
        assert_eq!(ended, [Stage::Create, Stage::Start, Stage::Fetch]);
    }
}
