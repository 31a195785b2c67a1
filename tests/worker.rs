//! The worker on a real nats-server, with pods that play scripts.

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::pull;
use futures::StreamExt;
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::pods::{PodStatus, Pods};
use hops_k8s::policy::{Patterns, Policy};
use hops_k8s::runner::Runner;
use hops_k8s::serve::metrics::Metrics;
use hops_k8s::serve::worker::{QueueError, Worker, WorkerOptions};
use hops_k8s_tests::nats::{Installation, Server};
use hops_k8s_tests::{policy, runner};
use rstest::rstest;
use serde_json::json;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const MIB: usize = 1024 * 1024;
const SECOND: Duration = Duration::from_secs(1);

fn options(server: &Server) -> WorkerOptions {
    let mut options = WorkerOptions::new(server.url(), server.account());
    options.ack_wait = 2 * SECOND;
    options
}

/// Pods that run for as many milliseconds as their first argument says, and give their second as the result.
fn pods() -> Arc<Memory> {
    Arc::new(Memory::new(|spec| {
        let millis = spec.args[0].parse().unwrap();
        Script::default()
            .at(0, PodStatus::running())
            .at(millis, PodStatus::exited(0, "Completed", ""))
            .file("result.json", spec.args[1].clone())
    }))
}

fn inputs(millis: u64, result: &str) -> String {
    json!({"image": "bash", "args": [millis.to_string(), result]}).to_string()
}

async fn runners(pods: Arc<dyn Pods>) -> watch::Receiver<Runner> {
    watch::channel(runner(pods, Policy::default()).await).1
}

/// A worker that runs in the background.
struct Running {
    worker: Arc<Worker>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(options: WorkerOptions, pods: Arc<dyn Pods>) -> Self {
        Self::of(Worker::connect(options, runners(pods).await, Arc::new(Metrics::default())).await.unwrap())
    }

    fn of(worker: Worker) -> Self {
        let worker = Arc::new(worker);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn({
            let (worker, shutdown) = (worker.clone(), shutdown.clone());
            async move { worker.run(shutdown).await }
        });
        Running { worker, shutdown, task }
    }

    /// Ends it as the end of its process would: nothing is said to anybody.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_have_a_hundred_results() {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let pods = pods();
    let mut options = options(&server);
    options.concurrency = 7;
    let worker = Running::start(options, pods.clone()).await;
    for number in 0..100 {
        installation.request("seq", &format!("call-{number}"), inputs(20, &format!("[{number}]"))).await;
    }
    for number in 0..100 {
        let document = installation.awaited("seq", &format!("call-{number}")).await;
        assert_eq!((document.error(), document.json()), ("", &json!([number])));
    }
    assert_eq!(installation.all_answered().await.num_redelivered, 0);
    worker.stop().await;
    assert_eq!((pods.created().len(), pods.live()), (100, 0));
}

#[rstest]
#[case::no_json("{", "InvalidInputs: ")]
#[case::unknown_input(r#"{"image": "a", "imagee": "b"}"#, "InvalidInputs: ")]
#[case::no_utf8(b"{\"image\": \"\xff\"}", "InvalidInputs: the inputs are no UTF-8 from byte 11 on")]
#[tokio::test(flavor = "multi_thread")]
async fn bad_inputs_have_an_errored_result(#[case] payload: impl AsRef<[u8]>, #[case] error: &str) {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let pods = pods();
    let worker = Running::start(options(&server), pods.clone()).await;
    installation.request("seq", "bad", payload).await;
    let document = installation.awaited("seq", "bad").await;
    assert!(document.error().starts_with(error), "{document:?}");
    installation.all_answered().await;
    assert!(pods.created().is_empty());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_nobody_knows_is_given_up() {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let worker = Running::start(options(&server), pods()).await;
    installation.publish("request.seq.unknown.k8s.walk", "{}").await;
    installation.request("seq", "known", inputs(10, "{}")).await;
    installation.awaited("seq", "known").await;
    let info = installation.all_answered().await;
    assert_eq!(info.num_redelivered, 0);
    assert!(installation.result("seq", "unknown").await.is_none());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_is_no_requests_does_no_harm() {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let worker = Running::start(options(&server), pods()).await;
    // When it asks for requests, it does not change the consumer any more.
    while installation.consumer().await.cached_info().num_waiting == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let config = pull::Config {
        durable_name: Some(format!("{}-request-k8s", server.account())),
        filter_subject: format!("{}.request.>", server.account()),
        ack_wait: 2 * SECOND,
        ..pull::Config::default()
    };
    installation.context.create_consumer_on_stream(config, server.account()).await.unwrap();
    installation.publish("request.seq.odd", "{}").await;
    installation.request("seq", "plain", inputs(10, "{}")).await;
    assert_eq!(installation.awaited("seq", "plain").await.error(), "");
    // It is not answered, nor asked about again and again.
    tokio::time::sleep(SECOND).await;
    let info = installation.consumer().await.cached_info().clone();
    assert_eq!((info.num_ack_pending, info.delivered.consumer_sequence), (1, 2));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_the_queue_does_not_take_is_an_error_that_says_so() {
    let server = Server::start(64 * 1024);
    let installation = Installation::start(&server).await;
    let pods = Arc::new(Memory::new(|_| Script::exits(0).file("result.json", "x".repeat(100_000))));
    let worker = Running::start(options(&server), pods.clone()).await;
    installation.request("seq", "large", json!({"image": "bash"}).to_string()).await;
    let document = installation.awaited("seq", "large").await;
    assert!(document.error().starts_with("ResultTooLarge: the result is 100"), "{document:?}");
    assert!(document.error().ends_with("more than the queue's limit of 65536 bytes"), "{document:?}");
    installation.all_answered().await;
    worker.stop().await;
    assert_eq!(pods.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_longer_than_three_ack_waits_is_run_once() {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let pods = pods();
    let mut options = options(&server);
    options.ack_wait = SECOND;
    let [one, other] =
        [Running::start(options.clone(), pods.clone()).await, Running::start(options, pods.clone()).await];
    installation.request("seq", "long", inputs(4500, "[]")).await;
    assert_eq!(installation.awaited("seq", "long").await.json(), &json!([]));
    assert_eq!(installation.all_answered().await.num_redelivered, 0);
    assert_eq!(pods.created().len(), 1);
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_a_worker_that_was_killed_is_taken_over_with_its_pod() {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let pods = pods();
    let killed = Running::start(options(&server), pods.clone()).await;
    installation.request("seq", "taken", inputs(3000, "[1]")).await;
    while killed.worker.in_flight() == 0 || pods.live() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    killed.kill().await;
    assert_eq!(pods.live(), 1);
    let worker = Running::start(options(&server), pods.clone()).await;
    assert_eq!(installation.awaited("seq", "taken").await.json(), &json!([1]));
    installation.all_answered().await;
    worker.stop().await;
    assert_eq!((pods.created().len(), pods.live()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_result_stands_is_not_run_again() {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let pods = pods();
    // So that there is a consumer.
    Running::start(options(&server), pods.clone()).await.kill().await;
    installation.request("seq", "done", inputs(10, "[]")).await;
    let consumer = installation.consumer().await;
    let taken = consumer.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
    let document = json!({
        "hops": {"started_at": "", "finished_at": "", "error": null}, "errored": false, "completed": true, "done": true,
        "body": "of another worker", "json": null,
    });
    installation.publish("notify.seq.done", document.to_string()).await;
    taken.ack_with(AckKind::Nak(None)).await.unwrap();
    let worker = Running::start(options(&server), pods.clone()).await;
    installation.all_answered().await;
    assert_eq!(installation.awaited("seq", "done").await.body(), "of another worker");
    assert!(pods.created().is_empty());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_goes_and_comes_back_loses_nothing() {
    let mut server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let pods = pods();
    let worker = Running::start(options(&server), pods.clone()).await;
    // Some end before it goes, some while it is away, some after.
    for number in 0..20 {
        installation.request("seq", &format!("call-{number}"), inputs(number * 400, &format!("[{number}]"))).await;
    }
    tokio::time::sleep(SECOND).await;
    server.kill();
    tokio::time::sleep(4 * SECOND).await;
    assert!(!worker.worker.is_connected());
    server.resume();
    for number in 0..20 {
        let document = installation.awaited("seq", &format!("call-{number}")).await;
        assert_eq!((document.error(), document.json()), ("", &json!([number])));
    }
    installation.all_answered().await;
    let start = Instant::now();
    installation.request("seq", "afterwards", inputs(10, "[]")).await;
    installation.awaited("seq", "afterwards").await;
    assert!(start.elapsed() < 3 * SECOND, "the worker does not ask again: {:?}", start.elapsed());
    worker.stop().await;
    assert_eq!((pods.created().len(), pods.live()), (21, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_finishes_what_ends_in_time_and_leaves_the_rest() {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let pods = pods();
    let mut options = options(&server);
    options.drain = 2 * SECOND;
    let worker = Running::start(options.clone(), pods.clone()).await;
    installation.request("seq", "short", inputs(1000, "[1]")).await;
    installation.request("seq", "long", inputs(6000, "[2]")).await;
    while pods.live() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    installation.request("seq", "new", inputs(10, "[3]")).await;
    let start = Instant::now();
    worker.stop().await;
    assert!(start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
    assert_eq!(installation.awaited("seq", "short").await.json(), &json!([1]));
    assert_eq!((pods.created().len(), pods.live()), (2, 1));

    let worker = Running::start(options, pods.clone()).await;
    assert_eq!(installation.awaited("seq", "new").await.json(), &json!([3]));
    assert_eq!(installation.awaited("seq", "long").await.json(), &json!([2]));
    installation.all_answered().await;
    worker.worker.stop_now();
    worker.task.await.unwrap();
    assert_eq!((pods.created().len(), pods.live()), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_requests_though_one_is_killed() {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let pods = pods();
    let mut options = options(&server);
    options.concurrency = 10;
    let [killed, worker] =
        [Running::start(options.clone(), pods.clone()).await, Running::start(options, pods.clone()).await];
    for number in 0..40 {
        installation.request("seq", &format!("call-{number}"), inputs(500, &format!("[{number}]"))).await;
    }
    while pods.created().len() < 15 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    killed.kill().await;
    for number in 0..40 {
        let document = installation.awaited("seq", &format!("call-{number}")).await;
        assert_eq!((document.error(), document.json()), ("", &json!([number])));
    }
    installation.all_answered().await;
    worker.stop().await;
    assert_eq!((pods.created().len(), pods.live()), (40, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_does_not_let_run_yet_stays_in_the_queue() {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let pods = pods();
    let policy = |most, namespaces: &[&str]| {
        policy(|policy| {
            policy.max_calls = NonZeroUsize::new(most);
            policy.namespaces = Some(Patterns::new(namespaces).unwrap());
        })
    };
    let runner = runner(pods.clone(), policy(2, &["**"])).await;
    let (runners, receiver) = watch::channel(runner.clone());
    let worker = Running::of(Worker::connect(options(&server), receiver, Arc::default()).await.unwrap());
    for number in 0..5 {
        installation.request("seq", &format!("call-{number}"), inputs(4000, "[]")).await;
    }
    while pods.live() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!((pods.live(), worker.worker.in_flight()), (2, 2));
    assert_eq!(installation.consumer().await.cached_info().num_pending, 3);

    runners.send_replace(runner.replaced(runner.plugins().clone(), policy(5, &["team-*"])));
    for number in 2..5 {
        let document = installation.awaited("seq", &format!("call-{number}")).await;
        assert!(document.error().starts_with("PolicyDenied: the namespace \"default\" is none of "), "{document:?}");
    }
    assert_eq!(pods.live(), 2, "the calls from before the change go on");
    for number in 0..2 {
        assert_eq!(installation.awaited("seq", &format!("call-{number}")).await.error(), "");
    }
    installation.all_answered().await;
    worker.stop().await;
    assert_eq!((pods.created().len(), pods.live()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn why_there_is_no_queue_is_said_without_the_password() {
    let server = Server::start(MIB);
    let connect = |url: String| async {
        let connected =
            Worker::connect(WorkerOptions::new(url, server.account()), runners(pods()).await, Arc::default()).await;
        let error = connected.err().expect("there is none");
        assert!(!error.to_string().contains("xyz"), "{error}");
        error
    };
    assert!(matches!(connect(server.url()).await, QueueError::NoStream { stream, .. } if stream == server.account()));
    let wrong = server.url().replace("%40cr", "%40no");
    assert!(matches!(connect(wrong).await, QueueError::Refused { .. }));
    assert!(matches!(connect("http://acc:xyz@host".into()).await, QueueError::Address(_)));
    assert!(matches!(connect("nats://acc:xyz@host:port".into()).await, QueueError::Address(_)));
}
