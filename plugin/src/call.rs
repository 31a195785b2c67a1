//! One call from start to end, through the imports.

use crate::bindings::hiphops::k8s::pods::{self, Cause, ContainerState, Phase, Pod, PodStatus};
use crate::bindings::wasi::clocks::{monotonic_clock, wall_clock};
use crate::inputs;
use crate::progress::{Ending, Progress, Step, log_tail};
use crate::request;
use crate::result::Outcome;
use std::time::Duration;

/// The lines of the log to ask for where the pod's status holds none.
const LOG_LINES: u32 = 20;

/// Runs a container as `inputs` say and returns the result document.
pub(crate) fn run(inputs: &str) -> String {
    let started = since_1970();
    let outcome = match inputs::parse(inputs) {
        Ok(inputs) => run_pod(inputs),
        Err(problems) => {
            let all: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            Outcome::failed(format!("InvalidInputs: {}", all.join("; ")))
        }
    };
    outcome.document(started, since_1970())
}

fn run_pod(inputs: inputs::Inputs) -> Outcome {
    let out_path = inputs.out_path.clone();
    let limits = request::limits(&inputs);
    let pod = match Pod::create(&request::pod_spec(inputs)) {
        Ok(pod) => pod,
        Err(pods::Error::Invalid(why)) => return Outcome::failed(format!("InvalidInputs: {why}")),
        Err(pods::Error::TooLarge(excess)) => {
            let pods::Excess { size, limit } = excess;
            let what = format!("in_files: {size} bytes in all, more than the host's limit of {limit} bytes");
            return Outcome::failed(format!("InvalidInputs: {what}"));
        }
        Err(error) => return Outcome::failed(refused(error)),
    };
    let outcome = match await_end(&pod, Progress::new(limits)) {
        Ok(Ending::Completed) => read_result(&pod, &out_path),
        Ok(Ending::Failed { mut error, log }) => {
            if log {
                error.push_str(&log_tail(&pod.tail_logs(LOG_LINES).unwrap_or_default()));
            }
            // The failure is the news; what the file holds is an extra.
            let mut outcome = read_result(&pod, &out_path);
            if outcome.error.is_some() {
                outcome = Outcome::default();
            }
            Outcome { error: Some(error), ..outcome }
        }
        Ok(Ending::Lost { error }) => Outcome::failed(error),
        Err(error) => Outcome::failed(refused(error)),
    };
    // The host deletes what cannot be deleted now as soon as it can; the result is right all the same.
    let _ = pod.delete();
    outcome
}

fn await_end(pod: &Pod, mut progress: Progress) -> Result<Ending, pods::Error> {
    // Not before the pod is there: the host may let a call wait for its turn.
    let created = monotonic_clock::now();
    let mut status = unseen();
    loop {
        let now = Duration::from_nanos(monotonic_clock::now().saturating_sub(created));
        match progress.judge(&status, now) {
            Step::Ended(ending) => return Ok(ending),
            Step::Wait(time) => {
                // Rounded up, so that the deadline has passed when the wait ends.
                let millis = time.subsec_nanos().div_ceil(1_000_000).into();
                let millis = time.as_secs().saturating_mul(1000).saturating_add(millis);
                if let Some(next) = pod.wait(millis)? {
                    status = next;
                }
            }
        }
    }
}

/// The status of a pod of which nothing was heard yet.
fn unseen() -> PodStatus {
    let nothing = || Cause { reason: String::new(), message: String::new() };
    PodStatus {
        phase: Phase::Pending,
        cause: nothing(),
        unschedulable: None,
        waits_for_room: false,
        disruption: None,
        deleted: false,
        main: ContainerState::Waiting(nothing()),
        sidecar: None,
    }
}

fn read_result(pod: &Pod, out_path: &str) -> Outcome {
    match pod.read_file(out_path) {
        Ok(Some(bytes)) => Outcome::of_file(out_path, bytes),
        Ok(None) => Outcome::default(),
        Err(pods::Error::TooLarge(pods::Excess { size, limit })) => Outcome::failed(format!(
            "ResultTooLarge: {out_path} is {size} bytes, more than the host's limit of {limit} bytes"
        )),
        Err(pods::Error::Unavailable(why) | pods::Error::Other(why)) => {
            Outcome::failed(format!("ResultUnavailable: {out_path} could not be read: {why}"))
        }
        Err(error) => Outcome::failed(refused(error)),
    }
}

/// The error of a call whose host said no.
fn refused(error: pods::Error) -> String {
    match error {
        pods::Error::PolicyDenied(why) => format!("PolicyDenied: {why}"),
        pods::Error::Forbidden(pods::Refusal { message, missing: None }) => format!("Forbidden: {message}"),
        pods::Error::Forbidden(pods::Refusal { message, missing: Some(rule) }) => {
            let pods::Rule { verb, resource, namespace } = rule;
            let (kind, place) = match &*namespace {
                "" => ("ClusterRole", String::new()),
                namespace => ("Role", format!(" in namespace {namespace:?}")),
            };
            format!(
                "Forbidden: {message}; what is missing is a {kind}{place} with the rule \
                 {{apiGroups: [\"\"], resources: [{resource:?}], verbs: [{verb:?}]}}"
            )
        }
        pods::Error::QuotaExceeded(why) => format!("QuotaExceeded: {why}"),
        pods::Error::Gone(why) => format!("PodDeleted: {why}"),
        pods::Error::TooLarge(pods::Excess { size, limit }) => {
            format!("Error: {size} bytes, more than the host's limit of {limit} bytes")
        }
        pods::Error::Unavailable(why) => format!("ClusterUnavailable: {why}"),
        pods::Error::Invalid(why) | pods::Error::Other(why) => format!("Error: {why}"),
    }
}

fn since_1970() -> Duration {
    let now = wall_clock::now();
    Duration::new(now.seconds, now.nanoseconds)
}
