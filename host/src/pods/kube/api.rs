//! Requests to the API server: tried again while that may help, and explained when it does not.

use super::body::{TooLarge, bounded};
use crate::pods::causes::chain;
use crate::pods::{Error, Refusal, Rule};
use backon::{ExponentialBuilder, Retryable};
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode};
use hyper_util::client::legacy;
use kube::client::UpgradeConnectionError;
use kube::core::Status;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};
use tokio::time::Instant;

/// The longest that one try of a request may take.
pub(super) const REQUEST: Duration = Duration::from_secs(15);

/// Hears of each request to the API server, except for watches.
pub trait ObserveRequests: fmt::Debug + Send + Sync {
    /// A request was answered with this code: `2xx` for success, the number of any other status, or `none` if there was
    /// no answer.
    fn answered(&self, code: &str);

    /// A request that failed is sent again.
    fn retried(&self);
}

/// The API server of a cluster.
pub(super) struct ApiServer {
    /// `None` if only the client knows it.
    address: Option<String>,
    /// How long a request is tried again.
    patience: Duration,
    /// Whether the last request got no answer.
    is_silent: AtomicBool,
    /// The end of the last `Retry-After`.
    busy_until: Mutex<Option<Instant>>,
    observer: Option<Arc<dyn ObserveRequests>>,
}

/// What a request does, in the words of a Role.
pub(super) struct Action {
    pub verb: &'static str,
    pub resource: &'static str,
    /// Empty for the whole cluster.
    pub namespace: String,
}

/// Why a request to the API server failed.
#[derive(Debug)]
pub(super) struct RequestError {
    reason: Reason,
    /// Whether this try, or an earlier one, may have had its effect.
    pub may_have_arrived: bool,
}

#[derive(Debug)]
enum Reason {
    /// The API server refused the request or could not serve it.
    Status(Box<Status>),
    /// There is no answer, or none that can be understood.
    NoAnswer(String),
    /// The answer is larger than this process is willing to hold.
    TooLarge(String),
    /// There is no connection, and trying again does not help: no credentials, a certificate that is not trusted.
    NoConnection(String),
}

impl RequestError {
    pub(super) fn no_answer(why: String) -> Self {
        RequestError { reason: Reason::NoAnswer(why), may_have_arrived: true }
    }

    fn no_connection(why: String) -> Self {
        RequestError { reason: Reason::NoConnection(why), may_have_arrived: false }
    }

    /// Whether the API server gave this reason, such as `NotFound`.
    pub(super) fn is(&self, reason: &str) -> bool {
        matches!(&self.reason, Reason::Status(status) if status.reason == reason)
    }

    /// Whether the API server gave this status code.
    pub(super) fn has_code(&self, code: u16) -> bool {
        matches!(&self.reason, Reason::Status(status) if status.code == code)
    }

    pub(super) fn is_too_large(&self) -> bool {
        matches!(self.reason, Reason::TooLarge(_))
    }

    /// Whether the namespace enforces the restricted Pod Security Standard, and the pod does not meet it.
    pub(super) fn demands_restricted_pod(&self) -> bool {
        self.has_code(403) && self.to_string().contains("violates PodSecurity \"restricted:")
    }

    /// Whether trying again may help.
    pub(super) fn may_pass(&self) -> bool {
        match &self.reason {
            // Two creations that count against one quota at the same time conflict.
            Reason::Status(status) => {
                matches!(status.code, 429 | 500 | 502..=504) || status.message.contains("please apply your changes")
            }
            Reason::NoAnswer(_) => true,
            Reason::TooLarge(_) | Reason::NoConnection(_) => false,
        }
    }
}

impl From<Box<Status>> for RequestError {
    fn from(mut status: Box<Status>) -> Self {
        (status.reason, status.message) = (bounded(&status.reason), bounded(&status.message));
        RequestError { may_have_arrived: status.code >= 500, reason: Reason::Status(status) }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Status(status) => f.write_str(&status.message),
            Reason::NoAnswer(why) | Reason::TooLarge(why) | Reason::NoConnection(why) => f.write_str(why),
        }
    }
}

impl From<kube::Error> for RequestError {
    fn from(error: kube::Error) -> Self {
        if let Some(error) = causes(&error).find(|error| error.is::<TooLarge>()) {
            return RequestError { reason: Reason::TooLarge(error.to_string()), may_have_arrived: true };
        }
        match error {
            kube::Error::Api(status) => status.into(),
            kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => {
                let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
                Box::new(Status::failure("", &reason).with_code(code.as_u16())).into()
            }
            kube::Error::Auth(error) => RequestError::no_connection(format!("no credentials: {}", chain(&error))),
            kube::Error::Service(error) => {
                // The outermost sentence says nothing that its cause does not.
                let why = error.source().map_or_else(|| error.to_string(), chain);
                if distrusts_certificate(&*error) {
                    return RequestError::no_connection(why);
                }
                let was_sent = !error.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect);
                RequestError { may_have_arrived: was_sent, ..RequestError::no_answer(why) }
            }
            error => RequestError::no_answer(chain(&error)),
        }
    }
}

/// Whether TLS failed because the other side's certificate is missing or not trusted.
fn distrusts_certificate(error: &(dyn StdError + 'static)) -> bool {
    causes(error)
        .filter_map(|error| error.downcast_ref())
        .any(|error| matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}

/// An error and all its causes.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| -> Option<&'a (dyn StdError + 'static)> {
        // An I/O error does not name the error that it wraps as its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        }
    })
}

/// The pauses between tries.
pub(super) fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(3))
        .with_jitter()
        .without_max_times()
}

/// Waits for the answer to a request, for at most `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, RequestError> {
    let late = |_| RequestError::no_answer(format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, answer).await.map_err(late)?.map_err(RequestError::from)
}

impl ApiServer {
    pub(super) fn new(address: Option<String>, patience: Duration, observer: Option<Arc<dyn ObserveRequests>>) -> Self {
        ApiServer { address, patience, is_silent: AtomicBool::new(false), busy_until: Mutex::default(), observer }
    }

    pub(super) fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Remembers the `Retry-After` of a response.
    pub(super) fn note_retry_after<B>(&self, response: &Response<B>) {
        let is_busy = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let after = response.headers().get(RETRY_AFTER).filter(|_| is_busy);
        if let Some(seconds) = after.and_then(|after| after.to_str().ok()?.parse().ok()) {
            let pause = Duration::from_secs(seconds).min(self.patience);
            *self.busy_until() = Some(Instant::now() + pause);
        }
    }

    /// The pause before the next try: `pause`, or longer if the API server asked for more.
    pub(super) fn pause(&self, pause: Duration) -> Duration {
        let asked = self.busy_until().map(|until| until.saturating_duration_since(Instant::now()));
        pause.max(asked.unwrap_or_default())
    }

    fn busy_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.busy_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request until it succeeds, trying again cannot help, or the patience is used up.
    pub(super) async fn request<T, F>(&self, mut send: impl FnMut() -> F) -> Result<T, RequestError>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let start = Instant::now();
        let any_arrived = AtomicBool::new(false);
        let attempt = || {
            let answer = within(REQUEST, send());
            async {
                let answer = answer.await;
                self.observe(answer.as_ref().err());
                answer.map_err(|mut error| {
                    error.may_have_arrived |= any_arrived.fetch_or(error.may_have_arrived, Ordering::Relaxed);
                    error
                })
            }
        };
        attempt
            .retry(backoff())
            .when(|error| error.may_pass() && start.elapsed() < self.patience)
            .adjust(|_, pause| pause.map(|pause| self.pause(pause)))
            .notify(|_, _| {
                if let Some(observer) = &self.observer {
                    observer.retried();
                }
            })
            .await
    }

    /// Takes note of how a try ended.
    fn observe(&self, error: Option<&RequestError>) {
        let code = match error.map(|error| &error.reason) {
            None => {
                self.is_silent.store(false, Ordering::Relaxed);
                "2xx"
            }
            Some(Reason::Status(status)) => &status.code.to_string(),
            Some(Reason::NoAnswer(why)) => {
                self.log_silence(why);
                "none"
            }
            Some(Reason::TooLarge(_) | Reason::NoConnection(_)) => "none",
        };
        if let Some(observer) = &self.observer {
            observer.answered(code);
        }
    }

    /// Logs the beginning of an outage, once for all calls.
    fn log_silence(&self, why: &str) {
        if !self.is_silent.swap(true, Ordering::Relaxed) {
            tracing::warn!("{self} does not answer ({why}); trying for {} s", self.patience.as_secs());
        }
    }

    /// The error of an action whose request failed.
    pub(super) fn explain(&self, error: RequestError, action: &Action) -> Error {
        let status = match error.reason {
            Reason::NoAnswer(why) => {
                return Error::Unavailable(format!(
                    "{self} does not answer: {why}; check that the cluster runs and that this is its address"
                ));
            }
            Reason::NoConnection(why) => {
                return Error::Unavailable(format!(
                    "no connection to {self}: {why}; check the configured credentials and certificate authority"
                ));
            }
            Reason::TooLarge(why) => return Error::Unavailable(format!("{self} is in trouble: {why}")),
            Reason::Status(status) => status,
        };
        let Status { code, message, .. } = *status;
        match code {
            401 => Error::Forbidden(Refusal {
                message: format!(
                    "{self} does not accept the credentials, which may have expired or been revoked; log in again"
                ),
                missing: None,
            }),
            403 if message.contains("exceeded quota") => Error::QuotaExceeded(message),
            403 => Error::Forbidden(refusal(message, action)),
            404 if message.starts_with("namespaces ") => {
                Error::Invalid(format!("namespace {:?} does not exist; create it or name another", action.namespace))
            }
            404 | 410 => Error::Gone(message),
            400 | 413 | 422 => Error::Invalid(message),
            429 | 500.. => Error::Unavailable(format!("{self} is in trouble: {message}")),
            code => Error::Other(format!("the API server answered {code}: {message}")),
        }
    }
}

/// What the API server's sentence says about an action that is forbidden.
fn refusal(message: String, action: &Action) -> Refusal {
    // Without the right to create a port-forward, the API server gives no reason, even to those who may get one.
    let lacks_reason = message.trim_end().ends_with(" is forbidden:");
    let verb = if lacks_reason { "create" } else { action.verb };
    let is_about_rules = lacks_reason || message.is_empty() || message.contains(" cannot ");
    let missing = is_about_rules.then(|| Rule {
        verb: verb.into(),
        resource: action.resource.into(),
        namespace: action.namespace.clone(),
    });
    let message = if lacks_reason || message.is_empty() {
        format!("may not {verb} {} in namespace {:?}", action.resource, action.namespace)
    } else {
        message
    };
    Refusal { message, missing }
}

/// `the API server at ADDRESS`, for messages.
impl fmt::Display for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "the API server at {address}"),
            None => f.write_str("the API server"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use rustls::CertificateError;

    /// The error of a TLS handshake, as it comes out of a connection.
    fn handshake(error: rustls::Error) -> kube::Error {
        let tls = io::Error::new(io::ErrorKind::InvalidData, error);
        kube::Error::Service(io::Error::other(tls).into())
    }

    #[rstest]
    #[case::an_untrusted_certificate(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer), false)]
    #[case::no_certificate(rustls::Error::NoCertificatesPresented, false)]
    #[case::a_word_about_certificates(rustls::Error::General("no time for your certificate".into()), true)]
    fn only_an_error_about_the_certificate_is_final(#[case] error: rustls::Error, #[case] may_pass: bool) {
        assert_eq!(RequestError::from(handshake(error)).may_pass(), may_pass);
    }
}
