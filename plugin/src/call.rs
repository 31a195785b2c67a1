//! One call from start to end, through the imports.

use crate::bindings::hiphops::k8s::pods::{self, Cause, ContainerState, Phase, Pod, PodStatus};
use crate::bindings::wasi::clocks::{monotonic_clock, wall_clock};
use crate::inputs;
use crate::progress::{Ending, Progress, Step, log_tail};
use crate::request;
use crate::result::CallResult;
use std::time::Duration;

/// How many lines of the log to ask for where the pod's status has none.
const LOG_LINES: u32 = 20;

/// Runs a container as the inputs ask and returns the result document.
pub(crate) fn run(inputs: &str) -> String {
    let started = since_1970();
    let result = match inputs::parse(inputs) {
        Ok(inputs) => run_pod(inputs),
        Err(problems) => {
            let all: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            CallResult::failed(format!("InvalidInputs: {}", all.join("; ")))
        }
    };
    result.document(started, since_1970())
}

fn run_pod(inputs: inputs::Inputs) -> CallResult {
    let out_path = inputs.out_path.clone();
    let progress = Progress::new(request::deadlines(&inputs), inputs.memory.clone());
    let pod = match Pod::create(&request::pod_spec(inputs)) {
        Ok(pod) => pod,
        Err(pods::Error::Invalid(why)) => return CallResult::failed(format!("InvalidInputs: {why}")),
        Err(pods::Error::TooLarge(excess)) => {
            let pods::Excess { size, limit } = excess;
            let what = format!("in_files: {size} bytes in all, more than the host's limit of {limit} bytes");
            return CallResult::failed(format!("InvalidInputs: {what}"));
        }
        Err(error) => return CallResult::failed(refused(error)),
    };
    let result = match await_end(&pod, progress) {
        Ok(Ending::Completed) => read_result(&pod, &out_path),
        Ok(Ending::Failed { mut error, log }) => {
            if log {
                error.push_str(&log_tail(&pod.tail_logs(LOG_LINES).unwrap_or_default()));
            }
            // The error is that of the container. A file that cannot be read adds no second one.
            let mut result = read_result(&pod, &out_path);
            if result.error.is_some() {
                result = CallResult::default();
            }
            CallResult { error: Some(error), ..result }
        }
        Ok(Ending::Lost { error }) => CallResult::failed(error),
        Err(error) => CallResult::failed(refused(error)),
    };
    // A pod that cannot be deleted now is deleted by the host later. The result does not depend on it.
    let _ = pod.delete();
    result
}

fn await_end(pod: &Pod, mut progress: Progress) -> Result<Ending, pods::Error> {
    // Not earlier, because the host may let a call wait before it creates the pod.
    let created = monotonic_clock::now();
    let mut status = unseen();
    loop {
        let now = Duration::from_nanos(monotonic_clock::now().saturating_sub(created));
        match progress.judge(&status, now) {
            Step::Ended(ending) => return Ok(ending),
            Step::Wait(time) => {
                // Rounded up: when the wait ends, the deadline has passed.
                let millis = time.subsec_nanos().div_ceil(1_000_000).into();
                let millis = time.as_secs().saturating_mul(1000).saturating_add(millis);
                if let Some(next) = pod.wait(millis)? {
                    status = next;
                }
            }
        }
    }
}

/// The status of a pod until the first one arrives.
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

fn read_result(pod: &Pod, out_path: &str) -> CallResult {
    match pod.read_file(out_path) {
        Ok(Some(bytes)) => CallResult::of_file(out_path, bytes),
        Ok(None) => CallResult::default(),
        Err(pods::Error::TooLarge(pods::Excess { size, limit })) => CallResult::failed(format!(
            "ResultTooLarge: {out_path} is {size} bytes, more than the host's limit of {limit} bytes"
        )),
        Err(pods::Error::Unavailable(why) | pods::Error::Other(why)) => {
            CallResult::failed(format!("ResultUnavailable: {out_path} could not be read: {why}"))
        }
        Err(error) => CallResult::failed(refused(error)),
    }
}

/// The error of a call that the host refused.
fn refused(error: pods::Error) -> String {
    match error {
        pods::Error::PolicyDenied(why) => format!("PolicyDenied: {why}"),
        pods::Error::Forbidden(pods::Refusal { message, missing: None }) => format!("Forbidden: {message}"),
        pods::Error::Forbidden(pods::Refusal { message, missing: Some(rule) }) => {
            let pods::Rule { verb, resource, namespace } = rule;
            let (kind, scope) = match &*namespace {
                "" => ("ClusterRole", String::new()),
                namespace => ("Role", format!(" in namespace {namespace:?}")),
            };
            format!(
                "Forbidden: {message}; what is missing is a {kind}{scope} with the rule \
                 {{apiGroups: [\"\"], resources: [{resource:?}], verbs: [{verb:?}]}}"
            )
        }
        pods::Error::QuotaExceeded(why) => format!("QuotaExceeded: {why}"),
        pods::Error::Gone(why) => format!("PodDeleted: {why}"),
        pods::Error::TooLarge(pods::Excess { size, limit }) => {
            format!("Error: the host accepts at most {limit} bytes, found {size} bytes")
        }
        pods::Error::Unavailable(why) => format!("ClusterUnavailable: {why}"),
        pods::Error::Invalid(why) | pods::Error::Other(why) => format!("Error: {why}"),
    }
}

fn since_1970() -> Duration {
    let now = wall_clock::now();
    Duration::new(now.seconds, now.nanoseconds)
}
