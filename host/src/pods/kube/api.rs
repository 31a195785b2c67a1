//! Requests to the API server: tried again while that may help, and explained when it does not.

use crate::pods::causes::chain;
use crate::pods::{Error, Refusal, Rule};
use crate::serve::metrics::Metrics;
use backon::{ExponentialBuilder, Retryable};
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode};
use kube::core::Status;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The longest that one try of a request may take.
pub(super) const REQUEST: Duration = Duration::from_secs(15);

/// The API server of a cluster.
pub(super) struct ApiServer {
    address: String,
    /// How long a request is tried again.
    patience: Duration,
    /// Whether the last that was heard of it was nothing.
    is_silent: AtomicBool,
    /// Until when it wants to be left alone.
    busy_until: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// What a request does, in the words of a Role.
pub(super) struct Action {
    pub verb: &'static str,
    pub resource: &'static str,
    /// Empty for the whole cluster.
    pub namespace: String,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Failure {
    why: Why,
    /// Whether what was asked for may have been done nonetheless, by this try or an earlier one.
    pub may_have_arrived: bool,
}

#[derive(Debug)]
enum Why {
    /// The API server says no.
    Status(Box<Status>),
    /// There is no answer, or none that can be understood.
    Unreachable(String),
    /// Trying again does not help: no credentials, a certificate that is not trusted.
    Refused(String),
}

impl Failure {
    /// There is no answer, or none that can be understood.
    pub(super) fn unreachable(why: String) -> Self {
        Failure { why: Why::Unreachable(why), may_have_arrived: true }
    }

    /// Whether the API server gave this reason.
    pub(super) fn is(&self, reason: &str) -> bool {
        matches!(&self.why, Why::Status(status) if status.reason == reason)
    }

    /// Whether a pod was refused because the namespace wants it to be restricted, in the sense of the Pod Security
    /// Standards.
    pub(super) fn is_for_want_of_restriction(&self) -> bool {
        self.has_code(403) && self.to_string().contains("violates PodSecurity \"restricted:")
    }

    /// Whether the API server gave this status code.
    pub(super) fn has_code(&self, code: u16) -> bool {
        matches!(&self.why, Why::Status(status) if status.code == code)
    }

    /// Whether trying again may help.
    pub(super) fn may_pass(&self) -> bool {
        match &self.why {
            // A create conflicts when two of them count against one quota at a time.
            Why::Status(status) => {
                matches!(status.code, 429 | 500 | 502..=504) || status.message.contains("please apply your changes")
            }
            Why::Unreachable(_) => true,
            Why::Refused(_) => false,
        }
    }
}

impl From<Box<Status>> for Failure {
    fn from(status: Box<Status>) -> Self {
        Failure { may_have_arrived: status.code >= 500, why: Why::Status(status) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Status(status) => f.write_str(&status.message),
            Why::Unreachable(why) | Why::Refused(why) => f.write_str(why),
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        let refused = |why| Failure { why: Why::Refused(why), may_have_arrived: false };
        match error {
            kube::Error::Api(status) => status.into(),
            kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(code)) => {
                let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
                Box::new(Status::failure("", &reason).with_code(code.as_u16())).into()
            }
            kube::Error::Auth(error) => refused(format!("no credentials: {}", chain(&error))),
            error => {
                let why = match &error {
                    // The words around the cause say nothing more.
                    kube::Error::Service(error) => error.source().map_or_else(|| error.to_string(), chain),
                    error => chain(error),
                };
                if why.contains("certificate") {
                    refused(why)
                } else {
                    Failure { may_have_arrived: !is_about_connecting(&error), ..Failure::unreachable(why) }
                }
            }
        }
    }
}

fn is_about_connecting(error: &kube::Error) -> bool {
    let kube::Error::Service(error) = error else { return false };
    error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(hyper_util::client::legacy::Error::is_connect)
}

/// The pauses between tries.
pub(super) fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(3))
        .with_jitter()
        .without_max_times()
}

/// Waits for the answer to a request, but no longer than this.
pub(super) async fn within<T>(limit: Duration, sent: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    let late = |_| Failure::unreachable(format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, sent).await.map_err(late)?.map_err(Failure::from)
}

impl ApiServer {
    pub(super) fn new(address: String, patience: Duration, metrics: Arc<Metrics>) -> Self {
        ApiServer { address, patience, is_silent: AtomicBool::new(false), busy_until: Mutex::default(), metrics }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Takes note of a `Retry-After`.
    pub(super) fn heed<B>(&self, response: &Response<B>) {
        let is_busy = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let after = response.headers().get(RETRY_AFTER).filter(|_| is_busy);
        if let Some(seconds) = after.and_then(|after| after.to_str().ok()?.parse().ok()) {
            let pause = Duration::from_secs(seconds).min(self.patience);
            *self.busy_until() = Some(Instant::now() + pause);
        }
    }

    /// How long to wait before a request is tried again, if it were `pause` otherwise.
    pub(super) fn pause(&self, pause: Duration) -> Duration {
        let busy = self.busy_until().map(|until| until.saturating_duration_since(Instant::now()));
        pause.max(busy.unwrap_or_default())
    }

    fn busy_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.busy_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request until there is an answer that will not change.
    pub(super) async fn request<T, F>(&self, mut send: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let start = Instant::now();
        let any_arrived = AtomicBool::new(false);
        let attempt = || {
            let sent = within(REQUEST, send());
            async {
                let mut failure = match sent.await {
                    Ok(answer) => {
                        self.is_silent.store(false, Ordering::Relaxed);
                        self.metrics.api_answered("2xx");
                        return Ok(answer);
                    }
                    Err(failure) => failure,
                };
                match &failure.why {
                    Why::Status(status) => self.metrics.api_answered(&status.code.to_string()),
                    Why::Unreachable(why) => {
                        self.metrics.api_answered("none");
                        self.tell_of_silence(why);
                    }
                    Why::Refused(_) => self.metrics.api_answered("none"),
                }
                failure.may_have_arrived |= any_arrived.fetch_or(failure.may_have_arrived, Ordering::Relaxed);
                Err(failure)
            }
        };
        attempt
            .retry(backoff())
            .when(|failure| failure.may_pass() && start.elapsed() < self.patience)
            .adjust(|_, pause| pause.map(|pause| self.pause(pause)))
            .notify(|_, _| self.metrics.api_retried())
            .await
    }

    /// Once for all calls: an outage concerns them all.
    fn tell_of_silence(&self, why: &str) {
        if !self.is_silent.swap(true, Ordering::Relaxed) {
            let (address, seconds) = (&self.address, self.patience.as_secs());
            tracing::warn!("the API server at {address} does not answer ({why}); trying for {seconds} s");
        }
    }

    /// What a failure means to the one who asked for the action.
    pub(super) fn explain(&self, failure: Failure, action: &Action) -> Error {
        let status = match failure.why {
            Why::Unreachable(why) => {
                return Error::Unavailable(format!(
                    "the API server at {} does not answer: {why}; check that the cluster runs and that this is its address",
                    self.address
                ));
            }
            Why::Refused(why) => {
                return Error::Unavailable(format!(
                    "no connection to the API server at {}: {why}; check the kubeconfig",
                    self.address
                ));
            }
            Why::Status(status) => status,
        };
        let Status { code, message, .. } = *status;
        match code {
            401 => Error::Forbidden(Refusal {
                message: format!(
                    "the API server at {} does not accept the credentials, which may have expired or been revoked; log in again",
                    self.address
                ),
                missing: None,
            }),
            403 if message.contains("exceeded quota") => Error::QuotaExceeded(message),
            403 => {
                // Who may get a port-forward and not create one is refused without a reason.
                let is_bare = message.trim_end().ends_with(" is forbidden:");
                let verb = if is_bare { "create" } else { action.verb };
                let missing = (is_bare || message.is_empty() || message.contains(" cannot ")).then(|| Rule {
                    verb: verb.into(),
                    resource: action.resource.into(),
                    namespace: action.namespace.clone(),
                });
                let message = if is_bare || message.is_empty() {
                    format!("may not {verb} {} in namespace {:?}", action.resource, action.namespace)
                } else {
                    message
                };
                Error::Forbidden(Refusal { message, missing })
            }
            404 if message.starts_with("namespaces ") => {
                Error::Invalid(format!("namespace {:?} does not exist; create it or name another", action.namespace))
            }
            404 | 410 => Error::Gone(message),
            400 | 413 | 422 => Error::Invalid(message),
            429 | 500.. => Error::Unavailable(format!("the API server at {} is in trouble: {message}", self.address)),
            code => Error::Other(format!("the API server answered {code}: {message}")),
        }
    }
}
