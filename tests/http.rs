//! The HTTP endpoints over real connections, with scripted pods.

use hops_k8s::pods::PodStatus;
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::policy::{Patterns, Policy};
use hops_k8s::runner::Runner;
use hops_k8s::serve::http::{BindError, Server, ServerOptions};
use hops_k8s::serve::metrics::Metrics;
use hops_k8s_tests::{Document, client::*, other_app, plugins, policy, runner, shared_plugin};
use rstest::rstest;
use serde_json::json;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const RUN: &str = "/v1/call/k8s/run";

/// Endpoints that run in the background.
struct Running {
    address: SocketAddr,
    pods: Arc<Memory>,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

/// Pods that end after as many milliseconds as their first argument says. Their second argument is the exit code.
async fn options(concurrency: usize) -> (Arc<Memory>, ServerOptions) {
    let pods = Arc::new(Memory::new(|spec| {
        let number = |index: usize| spec.args.get(index).map_or(0, |text| text.parse().unwrap());
        let end = PodStatus::exited(i32::try_from(number(1)).unwrap(), "Completed", "");
        Script::default().at(0, PodStatus::running()).at(number(0), end).file("result.json", "{\"a\": 1.10}")
    }));
    let runner = runner(pods.clone(), Policy::default()).await;
    let mut options = ServerOptions::new(watch::channel(runner).1, Arc::default());
    options.concurrency = concurrency;
    (pods, options)
}

impl Running {
    async fn start(concurrency: usize) -> Self {
        let (pods, options) = options(concurrency).await;
        let server = Server::bind(([127, 0, 0, 1], 0).into(), None, options).await.unwrap();
        Self::of(server, pods, Duration::from_secs(5))
    }

    fn of(server: Server, pods: Arc<Memory>, drain: Duration) -> Self {
        let (address, stop) = (server.address(), CancellationToken::new());
        let task = tokio::spawn(server.run(stop.clone(), drain));
        Running { address, pods, stop, task }
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.address, "GET", path, &[], b"").await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        send(self.address, "POST", path, headers, body.as_bytes()).await
    }

    /// Waits until this many pods live.
    async fn live(&self, pods: usize) {
        let start = Instant::now();
        while self.pods.live() != pods {
            assert!(start.elapsed() < Duration::from_secs(10), "{} pods live, not {pods}", self.pods.live());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn inputs(millis: u64, exit_code: i32) -> String {
    json!({"image": "bash", "args": [millis.to_string(), exit_code.to_string()]}).to_string()
}

#[tokio::test]
async fn a_call_is_answered_with_its_document_and_counted() {
    let server = Running::start(10).await;
    let good = server.post(RUN, &[], &inputs(20, 0)).await;
    assert_eq!(good.status, 200);
    // The file's own text.
    assert!(good.body.ends_with(r#""json":{"a": 1.10}}"#), "{}", good.body);
    for (bad, error) in [(&*inputs(0, 3), "Error: container exited with code 3"), ("{", "InvalidInputs: ")] {
        let answer = server.post(RUN, &[], bad).await;
        assert_eq!(answer.status, 200);
        assert!(Document::parse(&answer.body).error().starts_with(error), "{}", answer.body);
    }
    assert_eq!(server.pods.live(), 0);

    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        r#"hops_calls_total{outcome="Completed"} 1"#,
        r#"hops_calls_total{outcome="Error"} 1"#,
        r#"hops_calls_total{outcome="InvalidInputs"} 1"#,
        r#"hops_call_duration_seconds_count{stage="total"} 3"#,
        r#"hops_call_duration_seconds_count{stage="run"} 2"#,
        r#"hops_call_duration_seconds_count{stage="fetch"} 2"#,
        "hops_calls_in_flight 0",
    ] {
        assert!(metrics.body.lines().any(|found| found == line), "{line} is missing in\n{}", metrics.body);
    }
}

#[rstest]
#[case::no_handler("POST", "/v1/call/k8s/rum", 404, "there is no call k8s/rum; known are k8s/run")]
#[case::no_app("POST", "/v1/call/k9s/run", 404, "there is no call k9s/run; known are k8s/run")]
#[case::no_path("GET", "/v1", 404, "there is nothing at /v1; calls are at /v1/call/APP/HANDLER")]
#[case::no_id("GET", "/v1/call/abc", 404, "there is no such call: ")]
#[case::wrong_method("GET", RUN, 405, "/v1/call/k8s/run takes no GET")]
#[tokio::test]
async fn a_path_without_anything_is_refused_with_a_sentence(
    #[case] method: &str,
    #[case] path: &str,
    #[case] status: u16,
    #[case] why: &str,
) {
    let server = Running::start(1).await;
    let answer = send(server.address, method, path, &[], b"{}").await;
    assert_eq!(answer.status, status);
    assert!(answer.error().starts_with(why), "{}", answer.body);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_with_a_sentence() {
    let server = Running::start(1).await;
    let answer = send(server.address, "POST", RUN, &[], b"\xff").await;
    assert_eq!((answer.status, &*answer.error()), (400, "the request is not UTF-8; send the call's inputs as JSON"));
    let large = format!("POST {RUN} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", (32 << 20) + 1);
    let answer = exchange(server.address, large.as_bytes()).await;
    assert_eq!(
        (answer.status, &*answer.error()),
        (413, "the request has more than 32 MiB, the most that a call takes")
    );
    let chunk = [b"1000000\r\n".as_slice(), &vec![b' '; 0x100_0000], b"\r\n"].concat();
    let head = format!("POST {RUN} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunked = [head.as_bytes(), &chunk, &chunk, b"1\r\n \r\n"].concat();
    assert_eq!(exchange(server.address, &chunked).await.status, 413);
    assert_eq!(server.pods.created().len(), 0);
}

#[rstest]
#[case::header(RUN, &[("Prefer", "respond-async")])]
#[case::header_among_others(RUN, &[("Prefer", "handling=strict, Respond-Async;x")])]
#[case::query("/v1/call/k8s/run?a=b&wait=false", &[])]
#[tokio::test]
async fn a_client_that_does_not_wait_asks_for_the_result_later(#[case] path: &str, #[case] headers: &[(&str, &str)]) {
    let server = Running::start(10).await;
    let accepted = server.post(path, headers, &inputs(300, 0)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    let location = accepted.header("location").to_owned();
    assert!(location.starts_with("/v1/call/"));
    let running = server.get(&location).await;
    assert_eq!((running.status, running.header("retry-after")), (202, "1"));
    let start = Instant::now();
    let ended = loop {
        let answer = server.get(&location).await;
        if answer.status != 202 {
            break answer;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no result");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((ended.status, Document::parse(&ended.body).error()), (200, ""));
    assert_eq!(server.get(&location).await.body, ended.body);
}

#[tokio::test]
async fn a_call_over_the_limit_is_refused_and_a_client_that_disconnects_frees_its_slot_and_its_pod() {
    let server = Running::start(1).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let body = inputs(600_000, 0);
    let request = format!("POST {RUN} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.write_all(request.as_bytes()).await.unwrap();
    server.live(1).await;

    let refused = server.post(RUN, &[], &inputs(0, 0)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    assert!(refused.error().starts_with("the limit of concurrent calls is reached"), "{}", refused.body);
    drop(client);
    server.live(0).await;
    assert_eq!(server.post(RUN, &[], &inputs(0, 0)).await.status, 200);
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains(r#"hops_calls_total{outcome="Cancelled"} 1"#), "{metrics}");
    assert!(metrics.contains("hops_calls_in_flight 0"), "{metrics}");
}

#[tokio::test]
async fn calls_of_the_queue_count_within_the_limit() {
    let (_, options) = options(1).await;
    let metrics: Arc<Metrics> = options.metrics.clone();
    let server = Server::bind(([127, 0, 0, 1], 0).into(), None, options).await.unwrap();
    let server = Running::of(server, Arc::new(Memory::new(|_| Script::default())), Duration::ZERO);
    metrics.call_started();
    assert_eq!(server.post(RUN, &[], &inputs(0, 0)).await.status, 429);
    metrics.call_ended("Completed", Duration::ZERO);
    assert_eq!(server.post(RUN, &[], &inputs(0, 0)).await.status, 200);
}

#[tokio::test]
async fn a_policy_that_is_replaced_holds_for_the_calls_that_begin_afterwards() {
    let (pods, mut options) = options(10).await;
    let runner = options.runners.borrow().clone();
    let (runners, receiver) = watch::channel(runner.clone());
    options.runners = receiver;
    let server = Server::bind(([127, 0, 0, 1], 0).into(), None, options).await.unwrap();
    let server = Running::of(server, pods, Duration::ZERO);
    let before = tokio::spawn({
        let address = server.address;
        async move { send(address, "POST", RUN, &[], inputs(1000, 0).as_bytes()).await }
    });
    server.live(1).await;

    let policy = |images: &[&str], most| {
        policy(|policy| {
            policy.images = Some(Patterns::new(images).unwrap());
            policy.max_calls = NonZeroUsize::new(most);
        })
    };
    let replace = |policy| runners.send_replace(runner.replaced(runner.plugins().clone(), policy));
    replace(policy(&["ghcr.io/acme/*"], 2));
    let denied = Document::parse(&server.post(RUN, &[], &inputs(0, 0)).await.body);
    assert!(
        denied.error().starts_with("PolicyDenied: the image \"bash\" is from docker.io/library/bash, "),
        "{denied:?}"
    );
    // The call from before counts.
    replace(policy(&["**"], 1));
    let refused = server.post(RUN, &[], &inputs(0, 0)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    assert_eq!(Document::parse(&before.await.unwrap().body).error(), "");
    assert_eq!(server.post(RUN, &[], &inputs(0, 0)).await.status, 200);
}

#[tokio::test]
async fn without_a_token_only_programs_of_this_machine_can_call() {
    let open = Server::bind(([0, 0, 0, 0], 0).into(), None, options(1).await.1).await;
    let Err(error @ BindError::NoToken(_)) = open else { panic!("this must not be bound") };
    assert!(error.to_string().contains("without a token everybody there could run containers"), "{error}");
    let server = Running::start(1).await;
    let from_a_page = server.post(RUN, &[("Origin", "http://example.com")], &inputs(0, 0)).await;
    assert_eq!(from_a_page.status, 403);
    assert_eq!(server.pods.created().len(), 0);
}

#[tokio::test]
async fn a_server_with_a_token_refuses_calls_without_it() {
    let (pods, options) = options(1).await;
    let server = Server::bind(([0, 0, 0, 0], 0).into(), Some("secret"), options).await.unwrap();
    let mut server = Running::of(server, pods, Duration::ZERO);
    server.address.set_ip([127, 0, 0, 1].into());
    for headers in [&[][..], &[("Authorization", "Bearer wrong")], &[("Authorization", "Basic secret")]] {
        let answer = server.post(RUN, headers, &inputs(0, 0)).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"));
    }
    assert_eq!(server.get("/v1/call/abc").await.status, 401);
    assert_eq!(server.pods.created().len(), 0);
    for scheme in ["Bearer", "bearer"] {
        let header = format!("{scheme} secret");
        assert_eq!(server.post(RUN, &[("Authorization", &header)], &inputs(0, 0)).await.status, 200);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_server_answers_the_calls_of_each_app() {
    const DOCUMENT: &str = r#"{"hops":{"started_at":"a","finished_at":"b","error":null},"errored":false,"completed":true,"done":true,"body":"of echo","json":null}"#;
    let (pods, mut options) = options(10).await;
    let both = plugins([shared_plugin(), other_app("echo", "say", DOCUMENT)]).await;
    options.runners = watch::channel(Runner::new(both, pods.clone(), Policy::default())).1;
    let server = Server::bind(([127, 0, 0, 1], 0).into(), None, options).await.unwrap();
    let server = Running::of(server, pods, Duration::ZERO);
    let run = inputs(20, 0);
    let (of_k8s, of_echo) = tokio::join!(server.post(RUN, &[], &run), server.post("/v1/call/echo/say", &[], "{}"));
    assert_eq!(Document::parse(&of_k8s.body).json(), &json!({"a": 1.10}));
    assert_eq!((of_echo.status, &*of_echo.body), (200, DOCUMENT));
    assert_eq!(server.pods.created().len(), 1);
    let unknown = server.post("/v1/call/echo/run", &[], "{}").await;
    assert_eq!(unknown.error(), "there is no call echo/run; known are echo/say, k8s/run");
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let (pods, options) = options(1).await;
    let server = Server::bind(([127, 0, 0, 1], 0).into(), None, options).await.unwrap();
    let server = server
        .check("queue", || async { Ok(()) })
        .check("cluster", || async { Err("the API server does not answer".to_owned()) });
    let server = Running::of(server, pods, Duration::ZERO);
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 503);
    let expected = json!({"ready": false, "checks": {"queue": "ok", "cluster": "the API server does not answer"}});
    assert_eq!(answer.json(), expected);
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn calls_that_end_within_the_drain_time_are_answered_and_the_rest_is_cancelled() {
    let (pods, options) = options(10).await;
    let server = Server::bind(([127, 0, 0, 1], 0).into(), None, options).await.unwrap();
    let server = Running::of(server, pods, Duration::from_millis(1500));
    let call = |millis| {
        let address = server.address;
        tokio::spawn(async move { send(address, "POST", RUN, &[], inputs(millis, 0).as_bytes()).await })
    };
    let (quick, slow) = (call(700), call(600_000));
    server.live(2).await;
    server.stop.cancel();
    assert_eq!(quick.await.unwrap().status, 200);
    assert!(TcpStream::connect(server.address).await.is_err());
    let slow = slow.await.unwrap();
    assert_eq!(slow.status, 503);
    assert!(slow.error().contains("the server was stopped and the call's pod deleted"), "{}", slow.body);
    tokio::time::timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap().unwrap();
    assert_eq!(server.pods.live(), 0);
}
