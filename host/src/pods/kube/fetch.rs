//! Reads a file from a pod's result server, over HTTP.
//!
//! The user's container shares its network with the result server and may answer in its place. So an answer is either
//! the plain one that the result server gives, or refused:
//! - It has one length, a number, and no transfer encoding. No more than this length is read, and nothing beyond the
//!   limit. Its head is short, and no interim answer comes before it.
//! - It makes progress: each [`PIECE`] of the file comes within a [`PERIOD`].
//!
//! A try begins within [`PATIENCE`] of the first, and fails within a [`PERIOD`] of the last piece that came. So with the
//! default limit of 8 MiB, a reading takes less than 5 minutes, plus the time for which the API server is out of reach.

use super::Inner;
use super::api::{self, Action, backoff};
use super::watch::{OUTAGE, ServerState, Subscription};
use crate::pods::causes::chain;
use crate::pods::{Error, Excess};
use backon::Retryable;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long the result server may take to start, and how long a reading is tried again.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection, or the head of an answer, may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a piece of a file may take. A connection may stall for a few seconds and recover.
const PERIOD: Duration = Duration::from_secs(10);
/// The size of a piece: over a period, 32 KiB a second. A slower line than that is not worth waiting for.
const PIECE: usize = 320 << 10;
/// The most bytes of an answer's head. The result server's has some 200.
const MOST_HEAD: usize = 8 << 10;
/// The most lines of an answer's head.
const MOST_HEADERS: usize = 32;
/// The most bytes that a connection reads ahead.
const BUFFER: usize = 64 << 10;

/// The characters that a URL's path need not escape.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How pods are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// By their own addresses.
    PodIp,
    /// Through the API server, within this process: no local port is opened.
    PortForward,
}

/// Why one try failed.
enum Attempt {
    /// Trying again may help.
    Fault(String),
    /// The API server on the way to the pod does not answer. The pod is not to blame.
    Unreachable(String),
    /// Trying again does not help.
    Final(Error),
}

fn fault(why: impl Into<String>) -> Attempt {
    Attempt::Fault(why.into())
}

/// Reads a file below the output directory. `None` if it does not exist.
///
/// The result server has to run. The user's container may run too: a call that ran out of time still returns what was
/// written.
pub(super) async fn file(
    inner: &Inner,
    namespace: &str,
    name: &str,
    subscription: &Subscription,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, Error> {
    let unreadable = |why: String| Error::Unavailable(format!("the result server in pod {name} {why}"));
    match timeout(PATIENCE, subscription.server()).await {
        Ok(ServerState::Running) => {}
        Ok(ServerState::Ended(how)) => return Err(unreadable(format!("has ended {how}"))),
        Ok(ServerState::Unknown(error)) => return Err(error),
        Err(_) => return Err(unreadable(format!("has not started within {} s", PATIENCE.as_secs()))),
    }
    let start = Instant::now();
    let attempt = || async {
        match inner.route {
            Route::PodIp => {
                let ip = subscription.ip().ok_or_else(|| fault("the pod has no address"))?;
                let stream = within(ANSWER, TcpStream::connect((ip, inner.options.server_port))).await?;
                get(stream.map_err(|error| fault(format!("{ip}: {error}")))?, path, limit).await
            }
            Route::PortForward => {
                let pods: Api<Pod> = Api::namespaced(inner.client.clone(), namespace);
                let port = inner.options.server_port;
                let forwarder = api::within(ANSWER, pods.portforward(name, &[port])).await;
                let forwarder = forwarder.map_err(|error| {
                    let action = Action { verb: "get", resource: "pods/portforward", namespace: namespace.into() };
                    if error.may_pass() {
                        Attempt::Unreachable(error.to_string())
                    } else {
                        Attempt::Final(inner.server.explain(error, &action))
                    }
                })?;
                let mut forwarder = StopForwarding(forwarder);
                let stream = forwarder.0.take_stream(port).ok_or_else(|| fault("no stream"))?;
                get(stream, path, limit).await
            }
        }
    };
    let may_pass = |attempt: &Attempt| {
        let patience = match attempt {
            Attempt::Fault(_) => PATIENCE,
            Attempt::Unreachable(_) => OUTAGE,
            Attempt::Final(_) => Duration::ZERO,
        };
        start.elapsed() < patience && !subscription.server_has_ended()
    };
    attempt.retry(backoff()).when(may_pass).await.map_err(|attempt| match attempt {
        Attempt::Final(error) => error,
        Attempt::Fault(why) | Attempt::Unreachable(why) => unreadable(format!("does not deliver: {why}")),
    })
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Attempt> {
    timeout(limit, future).await.map_err(|_| fault(format!("no answer within {} s", limit.as_secs())))
}

/// One GET over a connection of its own.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, Attempt> {
    let broken = |error: hyper::Error| fault(chain(&error));
    let mut http = http1::Builder::new();
    http.max_headers(MOST_HEADERS).max_header_size(MOST_HEAD).max_buf_size(BUFFER);
    let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let _connection = AbortOnDrop(tokio::spawn(connection).abort_handle());
    let mut request = Request::get(format!("/{}", utf8_percent_encode(path, PATH)))
        .header(HOST, "result")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Attempt::Final(Error::Other(format!("no request can be made for {path:?}: {error}"))))?;
    let interim = CancellationToken::new();
    let cancel = interim.clone();
    hyper::ext::on_informational(&mut request, move |_| cancel.cancel());
    let response = interim.run_until_cancelled(within(ANSWER, sender.send_request(request)));
    let response = response.await.ok_or_else(|| fault("it sent an interim answer"))??.map_err(broken)?;
    match response.status() {
        StatusCode::OK => body(response, limit).await.map(Some),
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_server_error() => Err(fault(format!("it answered {status}"))),
        status => {
            Err(Attempt::Final(Error::Other(format!("the result server answered {status}; is it a regular file?"))))
        }
    }
}

/// The length that an answer announces.
fn length(headers: &HeaderMap) -> Result<u64, Attempt> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(fault("it sent the file with a transfer encoding"));
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(length), None) = (lengths.next(), lengths.next()) else {
        return Err(fault("it did not say how long the file is"));
    };
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| fault("it announced a length that is not a number"))
}

/// The whole body: exactly as many bytes as announced.
async fn body(response: Response<Incoming>, limit: u64) -> Result<Vec<u8>, Attempt> {
    let announced = length(response.headers())?;
    let too_large = || Attempt::Final(Error::TooLarge(Excess { size: announced, limit }));
    if announced > limit {
        return Err(too_large());
    }
    let length = usize::try_from(announced).map_err(|_| too_large())?;
    let mut body = response.into_body();
    let mut content = Vec::new();
    let (mut deadline, mut piece_end) = (Instant::now() + PERIOD, PIECE);
    while content.len() < length {
        let unfinished = |what: &str| fault(format!("it sent {} of {length} bytes {what}", content.len()));
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| unfinished("and is too slow"))?;
        let frame = frame.ok_or_else(|| unfinished("and ended"))?.map_err(|error| fault(chain(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        let left = length - content.len();
        if data.len() > left {
            return Err(fault(format!("it sent more than {length} bytes")));
        }
        // Memory grows with what has come, not with what was announced, and never beyond that.
        if content.capacity() - content.len() < data.len() {
            content.reserve_exact(content.len().max(data.len()).min(left));
        }
        content.extend_from_slice(&data);
        if content.len() >= piece_end {
            (deadline, piece_end) = (Instant::now() + PERIOD, content.len() + PIECE);
        }
    }
    Ok(content)
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Without an abort, a port-forward lives until the API server closes it.
struct StopForwarding(Portforwarder);

impl Drop for StopForwarding {
    fn drop(&mut self) {
        self.0.abort();
    }
}
