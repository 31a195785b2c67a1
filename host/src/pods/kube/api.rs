//! Requests to the API server: tried again while that may help, and explained when it does not.

use crate::pods::{Error, Refusal, Rule};
use backon::{ExponentialBuilder, Retryable};
use kube::core::Status;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest that one try of a request may take.
const REQUEST: Duration = Duration::from_secs(15);

/// The API server of a cluster.
pub(super) struct ApiServer {
    address: String,
    /// How long a request is tried again.
    patience: Duration,
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
pub(super) enum Failure {
    /// The API server says no.
    Status(Box<Status>),
    /// There is no answer, or none that can be understood.
    Unreachable {
        why: String,
        /// Whether a try of the request may have arrived all the same.
        may_have_arrived: bool,
    },
    /// Trying again does not help: no credentials, a certificate that is not trusted.
    Refused(String),
}

impl Failure {
    /// Whether the API server gave this reason.
    pub(super) fn is(&self, reason: &str) -> bool {
        matches!(self, Failure::Status(status) if status.reason == reason)
    }

    /// Whether what was asked for may have been done nonetheless.
    pub(super) fn may_have_arrived(&self) -> bool {
        match self {
            Failure::Status(status) => status.code >= 500,
            Failure::Unreachable { may_have_arrived, .. } => *may_have_arrived,
            Failure::Refused(_) => false,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            // A create conflicts when two of them count against one quota at a time.
            Failure::Status(status) => {
                matches!(status.code, 429 | 500 | 502..=504) || status.message.contains("please apply your changes")
            }
            Failure::Unreachable { .. } => true,
            Failure::Refused(_) => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Status(status) => f.write_str(&status.message),
            Failure::Unreachable { why, .. } | Failure::Refused(why) => f.write_str(why),
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Failure::Status(status),
            kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(code)) => {
                let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
                Failure::Status(Box::new(Status::failure("", &reason).with_code(code.as_u16())))
            }
            kube::Error::Auth(error) => Failure::Refused(format!("no credentials: {}", chain(&error))),
            error => {
                let why = chain(&error);
                if why.contains("certificate") {
                    Failure::Refused(why)
                } else {
                    Failure::Unreachable { why, may_have_arrived: !is_about_connecting(&error) }
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

/// An error and its causes, in one line, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        next = cause.source();
    }
    said
}

impl ApiServer {
    pub(super) fn new(address: String, patience: Duration) -> Self {
        ApiServer { address, patience }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request until there is an answer that will not change.
    ///
    /// That is on top of the client's own retries of 429, 503 and 504, which heed `Retry-After`.
    pub(super) async fn request<T, F>(&self, mut send: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let start = Instant::now();
        let any_arrived = AtomicBool::new(false);
        let attempt = || {
            let sent = tokio::time::timeout(REQUEST, send());
            async {
                let mut failure = match sent.await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => Failure::from(error),
                    Err(_) => {
                        let why = format!("no answer within {} s", REQUEST.as_secs());
                        Failure::Unreachable { why, may_have_arrived: true }
                    }
                };
                if let Failure::Unreachable { may_have_arrived, .. } = &mut failure {
                    *may_have_arrived |= any_arrived.fetch_or(*may_have_arrived, Ordering::Relaxed);
                }
                Err(failure)
            }
        };
        attempt.retry(backoff()).when(|failure| failure.may_pass() && start.elapsed() < self.patience).await
    }

    /// What a failure means to the one who asked for the action.
    pub(super) fn explain(&self, failure: Failure, action: &Action) -> Error {
        let status = match failure {
            Failure::Unreachable { why, .. } => {
                return Error::Unavailable(format!(
                    "the API server at {} does not answer: {why}; check that the cluster runs and that this is its address",
                    self.address
                ));
            }
            Failure::Refused(why) => {
                return Error::Unavailable(format!(
                    "no connection to the API server at {}: {why}; check the kubeconfig",
                    self.address
                ));
            }
            Failure::Status(status) => status,
        };
        let Status { code, message, .. } = *status;
        match code {
            401 => Error::Forbidden(Refusal {
                message: format!(
                    "the API server at {} does not accept the credentials; they may have expired or been revoked",
                    self.address
                ),
                missing: None,
            }),
            403 if message.contains("exceeded quota") => Error::QuotaExceeded(message),
            403 => {
                let is_access = message.is_empty() || message.contains(" cannot ");
                let missing = is_access.then(|| Rule {
                    verb: action.verb.into(),
                    resource: action.resource.into(),
                    namespace: action.namespace.clone(),
                });
                let message = if message.is_empty() {
                    format!("may not {} {} in namespace {:?}", action.verb, action.resource, action.namespace)
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
