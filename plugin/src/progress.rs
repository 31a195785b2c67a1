//! What a pod's status means: go on waiting, or the call is over, and how it ended.

use crate::bindings::hiphops::k8s::pods::{Cause, ContainerState, Phase, PodStatus, Terminated};
use std::time::Duration;

/// How long the call bears a state that Kubernetes retries by itself.
const GRACE: Duration = Duration::from_secs(20);
/// How long to wait for a change of a pod that waits for room. The host reports when that is over.
const ROOM: Duration = Duration::from_secs(60 * 60);
/// How many lines of a container's log an error has at most.
const LOG_LINES: usize = 20;

/// How long a container may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the pod's creation until the container runs. Time in which the pod waits for room does not count.
    pub start: Duration,
    /// From then until the container ends.
    pub run: Duration,
}

/// What to do about a status.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Judge the next status, or the same one again after this time.
    Wait(Duration),
    /// The call is over.
    Ended(Ending),
}

/// How the container's run ended, before its result file is looked at.
#[derive(Debug, PartialEq)]
pub enum Ending {
    /// Exit code 0: the result file decides.
    Completed,
    /// The container failed or was ended. There may be a result file nevertheless.
    Failed {
        /// A stable word, a colon and a sentence.
        error: String,
        /// Whether the end of the log is to be added, because the status does not contain it.
        log: bool,
    },
    /// There is no result file: the container never ran, or its files cannot be reached.
    Lost {
        /// A stable word, a colon and a sentence.
        error: String,
    },
}

/// Judges the statuses of one pod. All times count from its creation.
#[derive(Debug)]
pub struct Progress {
    deadlines: Deadlines,
    /// The container's memory limit, for messages.
    memory: String,
    /// How long the pod has waited for room. If it waits now, the time since `waiting_since` comes on top.
    waited: Duration,
    waiting_since: Option<Duration>,
    running_since: Option<Duration>,
    ended_since: Option<Duration>,
    trouble: Option<Trouble>,
}

/// A state that keeps the container from starting, and that may heal.
#[derive(Debug)]
struct Trouble {
    since: Duration,
    error: String,
}

impl Progress {
    /// For a pod that was just created. `memory` is its container's memory limit, for messages.
    pub fn new(deadlines: Deadlines, memory: String) -> Self {
        Progress {
            deadlines,
            memory,
            waited: Duration::ZERO,
            waiting_since: None,
            running_since: None,
            ended_since: None,
            trouble: None,
        }
    }

    /// What to do about the pod's status at the time `now`.
    pub fn judge(&mut self, status: &PodStatus, now: Duration) -> Step {
        if let Some(since) = self.waiting_since.take() {
            self.waited = self.waited.saturating_add(now.saturating_sub(since));
        }
        self.waiting_since = status.waits_for_room.then_some(now);
        match &status.main {
            ContainerState::Terminated(end) => self.terminated(end, status, now),
            _ if let Some(error) = lost(status) => Step::Ended(failed(error)),
            _ if matches!(status.phase, Phase::Failed | Phase::Succeeded) => {
                Step::Ended(Ending::Lost { error: sentence(&status.cause, "the pod ended before its container ran") })
            }
            ContainerState::Running => self.running(now),
            ContainerState::Waiting(cause) => self.starting(cause, status, now),
        }
    }

    fn running(&mut self, now: Duration) -> Step {
        // Whatever kept the container from running has healed.
        self.trouble = None;
        let since = *self.running_since.get_or_insert(now);
        match left(since, self.deadlines.run, now) {
            Some(left) => Step::Wait(left),
            None => {
                let limit = humantime::format_duration(self.deadlines.run);
                let error = format!(
                    "Timeout: the container ran longer than {limit} and was ended; raise \"timeout\" if it needs longer"
                );
                Step::Ended(Ending::Failed { error, log: true })
            }
        }
    }

    fn starting(&mut self, cause: &Cause, status: &PodStatus, now: Duration) -> Step {
        let sidecar = match &status.sidecar {
            Some(ContainerState::Waiting(cause)) => Some(cause),
            _ => None,
        };
        let grace = match self.trouble([Some(cause), sidecar].into_iter().flatten(), now) {
            Ok(grace) => grace,
            Err(error) => return Step::Ended(Ending::Lost { error }),
        };
        if status.waits_for_room {
            return Step::Wait(ROOM);
        }
        let Some(left) = left(self.waited, self.deadlines.start, now) else {
            let limit = humantime::format_duration(self.deadlines.start);
            let why = self.why_not_started(cause, status);
            return Step::Ended(Ending::Lost {
                error: format!("StartTimeout: the container did not start within {limit}: {why}"),
            });
        };
        Step::Wait(grace.map_or(left, |grace| grace.min(left)))
    }

    fn why_not_started(&self, cause: &Cause, status: &PodStatus) -> String {
        if let Some(words) = &status.unschedulable {
            return words.clone();
        }
        if let Some(trouble) = &self.trouble {
            return trouble.error.clone();
        }
        match (&*cause.reason, &*cause.message) {
            ("", "") => "the cluster said nothing about the pod".into(),
            ("ContainerCreating", "") => {
                "its image was still being pulled, or its files mounted (ContainerCreating)".into()
            }
            (reason, "") => format!("it was still in state {reason}"),
            ("", message) => message.into(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }

    /// Looks for a state that keeps a container from starting. Returns the time that is left for it to heal, `None` if
    /// there is no such state, or the error if it cannot heal or has not healed in time.
    fn trouble<'a>(
        &mut self,
        causes: impl Iterator<Item = &'a Cause>,
        now: Duration,
    ) -> Result<Option<Duration>, String> {
        let Some((cause, heals)) = causes.filter_map(|cause| Some((cause, heals(&cause.reason)?))).next() else {
            self.trouble = None;
            return Ok(None);
        };
        let error = sentence(cause, "the container cannot be started");
        if !heals {
            return Err(error);
        }
        let trouble = self.trouble.get_or_insert_with(|| Trouble { since: now, error: error.clone() });
        // What the failed pull said is more useful than the back-off after it.
        if cause.reason != "ImagePullBackOff" {
            trouble.error = error;
        }
        left(trouble.since, GRACE, now).map(Some).ok_or_else(|| trouble.error.clone())
    }

    fn terminated(&mut self, end: &Terminated, status: &PodStatus, now: Duration) -> Step {
        match &*end.reason {
            // The program was never started: there is no output.
            "StartError" | "ContainerCannotRun" => {
                let cause = Cause { reason: end.reason.clone(), message: end.message.clone() };
                return Step::Ended(Ending::Lost { error: sentence(&cause, "the container cannot be started") });
            }
            "ContainerStatusUnknown" => {
                let error = lost(status).unwrap_or_else(|| {
                    format!("NodeLost: {}", or(&end.message, "the node lost track of the container"))
                });
                return Step::Ended(Ending::Lost { error });
            }
            _ => {}
        }
        let ending = self.exited(end, status);
        let unread = |why: String| lost(status).unwrap_or_else(|| format!("ResultUnavailable: {why}"));
        match &status.sidecar {
            None | Some(ContainerState::Running) => Step::Ended(ending),
            Some(ContainerState::Terminated(sidecar)) => Step::Ended(unreadable(
                ending,
                unread(format!(
                    "the result server ended ({}, exit code {}) before the result was read",
                    or(&sidecar.reason, "no reason given"),
                    sidecar.exit_code
                )),
            )),
            Some(ContainerState::Waiting(_)) if status.deleted || status.phase == Phase::Failed => {
                Step::Ended(unreadable(ending, unread("the pod ended before the result was read".into())))
            }
            Some(ContainerState::Waiting(cause)) => match self.starting_server(cause, now) {
                Ok(wait) => Step::Wait(wait),
                Err(error) => Step::Ended(unreadable(ending, error)),
            },
        }
    }

    /// The container has ended and the result server is not up yet. It has as long as the container had to start.
    fn starting_server(&mut self, cause: &Cause, now: Duration) -> Result<Duration, String> {
        let grace = self.trouble(std::iter::once(cause), now)?;
        let since = *self.ended_since.get_or_insert(now);
        match left(since, self.deadlines.start, now) {
            Some(left) => Ok(grace.map_or(left, |grace| grace.min(left))),
            None => Err(format!(
                "ResultUnavailable: the result server did not start: {}",
                or(&cause.message, or(&cause.reason, "no reason given"))
            )),
        }
    }

    fn exited(&self, end: &Terminated, status: &PodStatus) -> Ending {
        let killed = lost(status).filter(|_| end.exit_code != 0);
        if end.reason == "OOMKilled" {
            let memory = &self.memory;
            failed(format!(
                "OOMKilled: the container ran into its memory limit of {memory}; raise \"memory\"{}",
                log_tail(&end.message)
            ))
        } else if let Some(error) = killed {
            failed(error)
        } else if end.exit_code == 0 {
            Ending::Completed
        } else {
            let signal = signal_name(end.exit_code).map(|name| format!(" ({name})")).unwrap_or_default();
            failed(format!("Error: container exited with code {}{signal}{}", end.exit_code, log_tail(&end.message)))
        }
    }
}

fn failed(error: String) -> Ending {
    Ending::Failed { error, log: false }
}

/// What is left of the time `limit` that began at `since`; `None` if it is over.
fn left(since: Duration, limit: Duration, now: Duration) -> Option<Duration> {
    since.saturating_add(limit).checked_sub(now).filter(|left| !left.is_zero())
}

/// The same ending where the result file cannot be read. A container that failed keeps its own error.
fn unreadable(ending: Ending, error: String) -> Ending {
    match ending {
        Ending::Completed => Ending::Lost { error },
        Ending::Failed { error, .. } | Ending::Lost { error } => Ending::Lost { error },
    }
}

/// `Reason: message`, with `Error` and `what` where Kubernetes gives none.
fn sentence(cause: &Cause, what: &str) -> String {
    format!("{}: {}", or(&cause.reason, "Error"), or(&cause.message, what))
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// Whether a state that keeps a container from starting may heal by itself; `None` for any other reason to wait.
fn heals(reason: &str) -> Option<bool> {
    match reason {
        "InvalidImageName" | "ErrImageNeverPull" | "CrashLoopBackOff" => Some(false),
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed"
        | "CreateContainerConfigError"
        | "CreateContainerError"
        | "CreatePodSandboxError"
        | "RunContainerError"
        | "PreStartHookError"
        | "PostStartHookError" => Some(true),
        _ => None,
    }
}

/// The error of a pod that something other than its container ended; `None` if there was no such thing.
fn lost(status: &PodStatus) -> Option<String> {
    let ending = status.deleted || matches!(status.phase, Phase::Failed | Phase::Unknown);
    if let (Some(cause), true) = (&status.disruption, ending) {
        let word = match &*cause.reason {
            "DeletionByTaintManager" | "DeletionByPodGC" => "NodeLost",
            _ => "Evicted",
        };
        return Some(format!("{word}: {}", or(&cause.message, or(&cause.reason, "no reason given"))));
    }
    let message = or(&status.cause.message, "the cluster gave no reason");
    match &*status.cause.reason {
        "Evicted" | "Preempting" | "NodeShutdown" | "Terminated" | "Shutdown" => Some(format!("Evicted: {message}")),
        "NodeLost" => Some(format!("NodeLost: {message}")),
        "DeadlineExceeded" => Some(format!("Timeout: {message}")),
        _ if status.deleted => Some("PodDeleted: somebody deleted the pod before it was done".into()),
        _ => None,
    }
}

/// The last lines of a container's log, to add to an error.
pub fn log_tail(log: &str) -> String {
    let log = log.trim_end();
    let start = log.rmatch_indices('\n').nth(LOG_LINES - 1).map_or(0, |(at, _)| at + 1);
    match log.get(start..) {
        None | Some("") => String::new(),
        Some(tail) => format!("\n{tail}"),
    }
}

fn signal_name(exit_code: i32) -> Option<&'static str> {
    Some(match exit_code.checked_sub(128)? {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
