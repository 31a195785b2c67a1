//! HTTP endpoints: calls for programs that do not speak NATS, health and metrics for whoever watches over the process.
//!
//! | | |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200, or 503 and which [`check`](Server::check) failed |
//! | `GET /metrics` | [`Metrics`], as OpenMetrics text |
//! | `POST /v1/call/APP/HANDLER` | takes inputs, answers with the result document; with `Prefer: respond-async` or `?wait=false` answers 202 at once |
//! | `GET /v1/call/ID` | 202 while a call of the second kind runs, then its document, for an hour |

mod calls;

use super::metrics::Metrics;
use crate::runner::Runner;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use calls::{Calls, Ended, Found};
use futures::future::BoxFuture;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The most bytes of a request's body: twice the limit of input files, because JSON escapes them.
const MAX_BODY: usize = 32 * 1024 * 1024;
/// How long the answer of a check is reused, so that clients cannot make this server ask the cluster all the time.
const CHECK_HOLDS: Duration = Duration::from_secs(1);
/// Seconds after which to ask again: for a slot, or for the result of a call that runs.
const ASK_AGAIN: &str = "1";

/// Why there are no endpoints.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Everybody who reaches the address could run containers.
    #[error("{0} can be reached from other machines, and without a token everybody there could run containers")]
    NoToken(SocketAddr),
    /// The system does not allow the address.
    #[error("cannot listen on {0}: {1}")]
    Address(SocketAddr, #[source] io::Error),
}

/// What the endpoints run calls with. Cloning it shares everything.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Runs the calls. Each begins with the runner that the channel holds at that time.
    pub runners: watch::Receiver<Runner>,
    /// Counts the calls, together with all others of the process.
    pub metrics: Arc<Metrics>,
    /// The most calls of the process at a time. While as many run, no call is accepted over HTTP.
    pub concurrency: usize,
}

impl ServerOptions {
    /// Runs calls with what `runners` holds, at most 1,000 at a time.
    pub fn new(runners: watch::Receiver<Runner>, metrics: Arc<Metrics>) -> Self {
        ServerOptions { runners, metrics, concurrency: 1000 }
    }

    fn runner(&self) -> Runner {
        self.runners.borrow().clone()
    }
}

type Check = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The endpoints, bound to their address.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    service: Service,
}

struct Service {
    options: ServerOptions,
    /// The hash of the token: a comparison of hashes takes a time that says nothing about the token.
    token: Option<[u8; 32]>,
    checks: Vec<(&'static str, Check)>,
    checked: Mutex<Option<(Instant, Checked)>>,
    calls: Calls,
}

/// The answer of `/readyz`: a status and a JSON text.
type Checked = (StatusCode, String);

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds to an address. With a `token`, requests below `/v1` need it as `Authorization: Bearer`. Without one, the
    /// address must be a loopback address.
    ///
    /// # Errors
    /// The address is open to others and there is no token, or the system does not allow it.
    pub async fn bind(address: SocketAddr, token: Option<&str>, options: ServerOptions) -> Result<Self, BindError> {
        if token.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(BindError::NoToken(address));
        }
        let unavailable = |error| BindError::Address(address, error);
        let listener = TcpListener::bind(address).await.map_err(unavailable)?;
        let address = listener.local_addr().map_err(unavailable)?;
        let service = Service {
            calls: Calls::new(options.clone()),
            options,
            token: token.map(digest),
            checks: vec![],
            checked: Mutex::default(),
        };
        Ok(Server { listener, address, service })
    }

    /// The address. Where port 0 was asked for, it has the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a condition for being ready. Its error is a sentence.
    #[must_use]
    pub fn check<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.service.checks.push((name, Box::new(move || Box::pin(check()))));
        self
    }

    /// Serves until `stop`. Then it takes nothing new, waits for the calls that end within `drain`, and cancels the
    /// rest. Their pods are being deleted when this returns.
    ///
    /// # Errors
    /// The system takes the address away.
    pub async fn run(self, stop: CancellationToken, drain: Duration) -> io::Result<()> {
        let service = Arc::new(self.service);
        let v1 = Router::new()
            .route("/v1/call/{app}/{handler}", post(call))
            .route("/v1/call/{id}", get(result))
            .layer(middleware::from_fn_with_state(service.clone(), admit));
        let router = Router::new()
            .route("/healthz", get(|| async { (StatusCode::OK, "ok\n") }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .merge(v1)
            .fallback(unknown)
            .method_not_allowed_fallback(wrong_method)
            .with_state(service.clone());
        let serving = axum::serve(self.listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let mut serving = tokio::spawn(serving.into_future());
        tokio::select! {
            ended = &mut serving => return ended.unwrap_or_else(|error| Err(io::Error::other(error))),
            () = stop.cancelled() => {}
        }
        let _ = tokio::time::timeout(drain, service.calls.ended()).await;
        service.calls.cancel();
        service.calls.ended().await;
        // Only idle connections are left.
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut serving).await;
        serving.abort();
        Ok(())
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Lets requests through whose senders may run containers.
async fn admit(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    match &service.token {
        Some(token) => {
            let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            let given = given.and_then(|value| value.split_once(' '));
            let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            if given.is_none_or(|(_, given)| digest(given.trim()) != *token) {
                let why = "this needs the server's token: send the header Authorization: Bearer TOKEN";
                return ([(WWW_AUTHENTICATE, "Bearer")], refusal(StatusCode::UNAUTHORIZED, why)).into_response();
            }
        }
        // Web pages that somebody on this machine looks at can send requests to it too. Browsers name the page.
        None if request.headers().contains_key(ORIGIN) => {
            return refusal(StatusCode::FORBIDDEN, "without a token, this server takes no requests from web pages");
        }
        None => {}
    }
    next.run(request).await
}

async fn call(
    State(service): State<Arc<Service>>,
    Path((app, handler)): Path<(String, String)>,
    request: Request,
) -> Response {
    let runner = service.options.runner();
    if !runner.plugins().has(&app, &handler) {
        let known = runner.plugins().handlers().map(|(app, handler)| format!("{app}/{}", handler.name));
        let known: Vec<String> = known.collect();
        let why = format!("there is no call {app}/{handler}; known are {}", known.join(", "));
        return refusal(StatusCode::NOT_FOUND, &why);
    }
    let is_async = wants_no_wait(request.uri().query(), request.headers());
    let inputs = match read(request).await {
        Ok(inputs) => inputs,
        Err(refused) => return refused,
    };
    let Some(slot) = service.calls.slot() else {
        let why = "the limit of concurrent calls is reached; ask again later, or have the operator raise the limit";
        return ([(RETRY_AFTER, ASK_AGAIN)], refusal(StatusCode::TOO_MANY_REQUESTS, why)).into_response();
    };
    if is_async {
        let id = service.calls.spawn(app, handler, inputs, slot);
        let location = format!("/v1/call/{id}");
        let body = json_text(StatusCode::ACCEPTED, json!({"id": id, "result": location}).to_string());
        return ([(LOCATION, location)], body).into_response();
    }
    answer(service.calls.run(&app, &handler, &inputs, slot).await)
}

fn wants_no_wait(query: Option<&str>, headers: &HeaderMap) -> bool {
    let mut parameters = query.unwrap_or_default().split('&');
    let mut preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    parameters.any(|parameter| parameter == "wait=false")
        || preferences.any(|value| value.split([',', ';']).any(|one| one.trim().eq_ignore_ascii_case("respond-async")))
}

/// Reads the request's body, which must be UTF-8. What it means is for the plugin to say.
async fn read(request: Request) -> Result<String, Response> {
    let too_large = || {
        let why = format!("the request has more than {} MiB, the most that a call takes", MAX_BODY >> 20);
        refusal(StatusCode::PAYLOAD_TOO_LARGE, &why)
    };
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) {
        return Err(too_large());
    }
    let bytes = to_bytes(request.into_body(), MAX_BODY).await.map_err(|error| {
        let is_limit =
            std::error::Error::source(&error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if is_limit {
            too_large()
        } else {
            refusal(StatusCode::BAD_REQUEST, &format!("the request is incomplete: {error}"))
        }
    })?;
    let not_text = |_| refusal(StatusCode::BAD_REQUEST, "the request is not UTF-8; send the call's inputs as JSON");
    String::from_utf8(bytes.into()).map_err(not_text)
}

async fn result(State(service): State<Arc<Service>>, Path(id): Path<String>) -> Response {
    match service.calls.find(&id) {
        Found::Running => {
            let running = json_text(StatusCode::ACCEPTED, json!({"id": id, "done": false}).to_string());
            ([(RETRY_AFTER, ASK_AGAIN)], running).into_response()
        }
        Found::Ended(ended) => answer(ended),
        Found::Nothing => {
            let why = "there is no such call: it was never made, it ended more than an hour ago or too many calls ago, or \
                       the server was restarted since";
            refusal(StatusCode::NOT_FOUND, why)
        }
    }
}

fn answer(ended: Ended) -> Response {
    match ended {
        Ended::Called(called) => json_text(StatusCode::OK, called.into_text()),
        Ended::Cancelled => {
            let why = "the server was stopped and the call's pod deleted; call again when the server is back";
            refusal(StatusCode::SERVICE_UNAVAILABLE, why)
        }
    }
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    let mut checked = service.checked.lock().await;
    let answer = match &*checked {
        Some((when, answer)) if when.elapsed() < CHECK_HOLDS => answer.clone(),
        _ => {
            let found = futures::future::join_all(service.checks.iter().map(|(_, check)| check())).await;
            let is_ready = found.iter().all(Result::is_ok);
            let checks: serde_json::Map<_, _> = service
                .checks
                .iter()
                .zip(found)
                .map(|((name, _), found)| ((*name).to_owned(), found.err().unwrap_or_else(|| "ok".into()).into()))
                .collect();
            let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let answer = (status, json!({"ready": is_ready, "checks": checks}).to_string());
            *checked = Some((Instant::now(), answer.clone()));
            answer
        }
    };
    json_text(answer.0, answer.1)
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], service.options.metrics.encode()).into_response()
}

async fn unknown(request: Request) -> Response {
    let why = format!("there is nothing at {}; calls are at /v1/call/APP/HANDLER", request.uri().path());
    refusal(StatusCode::NOT_FOUND, &why)
}

async fn wrong_method(method: Method, request: Request) -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("{} takes no {method}", request.uri().path()))
}

fn refusal(status: StatusCode, why: &str) -> Response {
    json_text(status, json!({"error": why}).to_string())
}

fn json_text(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], Body::from(text)).into_response()
}
