//! Reading a file from a pod's result server: over HTTP, from the pod's address or through the API server.

use super::Inner;
use super::api::{self, Action, backoff};
use super::watch::{OUTAGE, Subscription};
use crate::pods::causes::chain;
use crate::pods::{Error, Excess};
use backon::Retryable;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long reading is tried again.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest until there is an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// The longest that the body may make no progress.
const STALL: Duration = Duration::from_secs(10);

/// What stands for itself in a URL's path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How pods are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// By their own addresses: we are in the cluster.
    PodIp,
    /// Through the API server, inside this process: no local port is opened.
    PortForward,
}

/// Why one try failed.
enum Attempt {
    /// Trying again may help.
    Fault(String),
    /// The API server on the way to the pod does not answer, which is no fault of the pod's.
    Unreachable(String),
    /// It does not.
    Final(Error),
}

/// Reads a file below the output directory; none if it does not exist.
pub(super) async fn file(
    inner: &Inner,
    namespace: &str,
    name: &str,
    subscription: &Subscription,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, Error> {
    let start = Instant::now();
    let attempt = || async {
        match inner.route {
            Route::PodIp => {
                let ip = subscription.ip().ok_or_else(|| Attempt::Fault("the pod has no address yet".into()))?;
                let address = (ip.as_str(), inner.options.server_port);
                let stream = within(ANSWER, TcpStream::connect(address)).await?;
                get(stream.map_err(|error| Attempt::Fault(format!("{ip}: {error}")))?, path, limit).await
            }
            Route::PortForward => {
                let pods: Api<Pod> = Api::namespaced(inner.client.clone(), namespace);
                let port = inner.options.server_port;
                let forwarder = api::within(ANSWER, pods.portforward(name, &[port])).await;
                let mut forwarder = forwarder.map_err(|error| {
                    let action = Action { verb: "get", resource: "pods/portforward", namespace: namespace.into() };
                    if error.may_pass() {
                        Attempt::Unreachable(error.to_string())
                    } else {
                        Attempt::Final(inner.server.explain(error, &action))
                    }
                })?;
                let stream = forwarder.take_stream(port).ok_or_else(|| Attempt::Fault("no stream".into()))?;
                let content = get(stream, path, limit).await;
                forwarder.abort();
                content
            }
        }
    };
    let may_pass = |attempt: &Attempt| {
        let patience = match attempt {
            Attempt::Fault(_) => PATIENCE,
            Attempt::Unreachable(_) => OUTAGE,
            Attempt::Final(_) => Duration::ZERO,
        };
        start.elapsed() < patience && !subscription.is_out_of_reach()
    };
    attempt.retry(backoff()).when(may_pass).await.map_err(|attempt| match attempt {
        Attempt::Final(error) => error,
        Attempt::Fault(why) | Attempt::Unreachable(why) => {
            Error::Unavailable(format!("the result server in pod {name} does not deliver: {why}"))
        }
    })
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Attempt> {
    let late = |_| Attempt::Fault(format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, future).await.map_err(late)
}

/// One GET over a connection of its own.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, Attempt> {
    let fault = |error: hyper::Error| Attempt::Fault(chain(&error));
    let (mut sender, connection) = within(ANSWER, http1::handshake(TokioIo::new(stream))).await?.map_err(fault)?;
    let driver = tokio::spawn(connection);
    let _stop = AbortOnDrop(driver.abort_handle());
    let request = Request::get(format!("/{}", utf8_percent_encode(path, PATH)))
        .header(HOST, "result")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Attempt::Final(Error::Other(format!("{path:?} makes no request: {error}"))))?;
    let response = within(ANSWER, sender.send_request(request)).await?.map_err(fault)?;
    match response.status() {
        StatusCode::OK => body(response, limit).await.map(Some),
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_server_error() => Err(Attempt::Fault(format!("it answered {status}"))),
        status => {
            Err(Attempt::Final(Error::Other(format!("the result server answered {status}; is it a regular file?"))))
        }
    }
}

/// The whole body, and never a part of it: it must be as long as announced.
async fn body(response: Response<Incoming>, limit: u64) -> Result<Vec<u8>, Attempt> {
    let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let Some(length) = length else {
        return Err(Attempt::Fault("it did not say how long the file is".into()));
    };
    if length > limit {
        return Err(Attempt::Final(Error::TooLarge(Excess { size: length, limit })));
    }
    let mut body = response.into_body();
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    while let Some(frame) = within(STALL, body.frame()).await? {
        let frame = frame.map_err(|error| Attempt::Fault(chain(&error)))?;
        if let Ok(data) = frame.into_data() {
            content.extend_from_slice(&data);
        }
    }
    if content.len() as u64 != length {
        return Err(Attempt::Fault(format!("it sent {} of {length} bytes", content.len())));
    }
    Ok(content)
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
