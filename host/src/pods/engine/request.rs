//! Requests to the engine: a connection for each, and no answer without a bound.
//!
//! An engine passes on what containers, images and registries say. All of that is bounded here or by the one who reads
//! the [`Answer`].

use super::endpoint::Endpoint;
use futures::{Stream, TryStreamExt};
use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::AbortHandle;

/// How long a request may take, unless it waits for a container.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest answer that is read as a whole, in bytes.
const MOST_ANSWER: usize = 8 << 20;
/// The longest description of an error that is read, and the longest message that is passed on.
const MOST_ERROR: usize = 64 << 10;
const MOST_MESSAGE: usize = 4096;
/// What is read from a connection at once, and the headers at most, in bytes.
const BUFFER: usize = 64 << 10;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The engine answered that it cannot do it.
    #[error("{message}")]
    Refused { status: u16, message: String },
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("the connection broke off")]
    Broken(#[from] hyper::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    #[error("its answer has more than {0} bytes")]
    TooLong(usize),
    #[error("its answer cannot be understood")]
    Unreadable(#[source] serde_json::Error),
}

/// The body of a successful answer, piece by piece. Dropping it closes the connection.
pub(super) struct Answer {
    body: Incoming,
    connection: AbortHandle,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Stream for Answer {
    type Item = Result<Bytes, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}

/// A request: `POST` and a path with its query.
pub(super) fn request(method: Method, path: &str) -> Builder {
    Request::builder().method(method).uri(path)
}

/// Sends a request, and returns its answer as JSON.
pub(super) async fn json<T: DeserializeOwned>(
    endpoint: &Endpoint,
    request: Builder,
    body: impl Into<Bytes>,
) -> Result<T, RequestError> {
    let exchange = async {
        let answer = send(endpoint, request, body.into()).await?;
        beginning(answer, MOST_ANSWER).await?.map_err(|_| RequestError::TooLong(MOST_ANSWER))
    };
    let body = within_patience(exchange).await?;
    serde_json::from_slice(&body).map_err(RequestError::Unreadable)
}

/// Sends a request whose answer says nothing beyond its status.
pub(super) async fn done(endpoint: &Endpoint, request: Builder, body: impl Into<Bytes>) -> Result<(), RequestError> {
    open(endpoint, request, body).await.map(drop)
}

/// Sends a request whose answer is read piece by piece.
pub(super) async fn open(
    endpoint: &Endpoint,
    request: Builder,
    body: impl Into<Bytes>,
) -> Result<Answer, RequestError> {
    within_patience(send(endpoint, request, body.into())).await
}

async fn within_patience<T>(exchange: impl Future<Output = Result<T, RequestError>>) -> Result<T, RequestError> {
    tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| RequestError::Late(PATIENCE))?
}

/// Sends a request, and waits for its answer however long that takes.
pub(super) async fn send(endpoint: &Endpoint, request: Builder, body: Bytes) -> Result<Answer, RequestError> {
    let stream = endpoint.connect().await.map_err(RequestError::Connect)?;
    let mut http = http1::Builder::new();
    let (mut sender, connection) = http.max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection).abort_handle();
    let request = request.header(HOST, endpoint.host()).header(CONTENT_TYPE, "application/json");
    // It has been put together from what is percent-encoded, so this cannot fail.
    let request = request.body(Full::new(body)).map_err(|error| RequestError::Connect(io::Error::other(error)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let answer = Answer { body: response.into_body(), connection };
    // 304: what is to be started runs.
    if status.is_success() || status.as_u16() == 304 {
        return Ok(answer);
    }
    let text = beginning(answer, MOST_ERROR).await?.unwrap_or_else(|beginning| beginning);
    Err(RequestError::Refused { status: status.as_u16(), message: message(&text) })
}

/// An answer as a whole, or as the error its first bytes if it has more than `most`.
async fn beginning(mut answer: Answer, most: usize) -> Result<Result<Vec<u8>, Vec<u8>>, RequestError> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.try_next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > most {
            bytes.truncate(most);
            return Ok(Err(bytes));
        }
    }
    Ok(Ok(bytes))
}

/// What an engine says of an error: its message if that can be read, otherwise all of it.
fn message(error: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Described {
        message: String,
    }
    match serde_json::from_slice(error) {
        Ok(Described { message }) => clipped(message),
        Err(_) => clipped(String::from_utf8_lossy(error).trim().to_owned()),
    }
}

/// As much of a message as is passed on.
pub(super) fn clipped(mut message: String) -> String {
    if message.len() > MOST_MESSAGE {
        message.truncate(message.floor_char_boundary(MOST_MESSAGE));
        message.push('…');
    }
    message
}
