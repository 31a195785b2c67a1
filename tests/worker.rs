//! The worker on a real nats-server, with scripted pods.

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{Info, PullConsumer, pull};
use futures::StreamExt;
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::pods::{PodStatus, Pods};
use hops_k8s::policy::{Patterns, Policy};
use hops_k8s::runner::Runner;
use hops_k8s::serve::metrics::Metrics;
use hops_k8s::serve::worker::{QueueError, Worker, WorkerOptions};
use hops_k8s_tests::nats::{Installation, Server};
use hops_k8s_tests::{other_app, plugins, policy, runner, shared_plugin};
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

/// Pods that run for as many milliseconds as their first argument says. Their second argument is the result.
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

/// Waits until a condition holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < 30 * SECOND, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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

    /// Ends it as the end of its process would: nobody is told.
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
#[case::not_json("{", "InvalidInputs: ")]
#[case::unknown_input(r#"{"image": "a", "imagee": "b"}"#, "InvalidInputs: ")]
#[case::not_utf8(b"{\"image\": \"\xff\"}", "InvalidInputs: the inputs are not UTF-8 from byte 11 on")]
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
async fn a_request_for_an_unknown_handler_is_terminated() {
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
async fn a_message_that_is_not_a_request_does_no_harm() {
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let worker = Running::start(options(&server), pods()).await;
    // Once it asks for requests, it does not change the consumer any more.
    let start = Instant::now();
    while installation.consumer().await.cached_info().num_waiting == 0 {
        assert!(start.elapsed() < 30 * SECOND, "the worker does not ask for requests");
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
    // It is not answered, and not delivered again at once.
    tokio::time::sleep(SECOND).await;
    let info = installation.consumer().await.cached_info().clone();
    assert_eq!((info.num_ack_pending, info.delivered.consumer_sequence), (1, 2));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_over_the_limit_of_the_queue_becomes_an_error_that_says_so() {
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
    until("the call has a pod", || killed.worker.in_flight() == 1 && pods.live() == 1).await;
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
    // Creates the consumer.
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
    // Some calls end before the queue goes, some while it is away, some after it is back.
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
    assert!(start.elapsed() < 3 * SECOND, "the worker does not ask for requests: {:?}", start.elapsed());
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
    until("two calls have pods", || pods.live() == 2).await;
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
    until("15 pods were created", || pods.created().len() >= 15).await;
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
async fn requests_over_the_policys_limit_of_calls_stay_in_the_queue() {
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
    until("two calls have pods", || pods.live() == 2).await;
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

/// The installation's consumer for another app than `k8s`.
async fn consumer_of(installation: &Installation, account: &str, app: &str) -> Info {
    let stream = installation.context.get_stream_no_info(account).await.unwrap();
    let consumer: PullConsumer = stream.get_consumer(&format!("{account}-request-{app}")).await.unwrap();
    consumer.cached_info().clone()
}

#[rstest]
#[case::with_slots_for_both(None)]
#[case::in_turn(NonZeroUsize::new(1))]
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_answers_the_requests_of_each_app_from_a_consumer_of_its_own(#[case] most: Option<NonZeroUsize>) {
    const DOCUMENT: &str = r#"{"hops":{"started_at":"a","finished_at":"b","error":null},"errored":false,"completed":true,"done":true,"body":"of echo","json":null}"#;
    let server = Server::start(MIB);
    let installation = Installation::start(&server).await;
    let pods = pods();
    let both = plugins([shared_plugin(), other_app("echo", "say", DOCUMENT)]).await;
    let runner = Runner::new(both, pods.clone(), policy(|policy| policy.max_calls = most));
    let worker = Worker::connect(options(&server), watch::channel(runner).1, Arc::default()).await.unwrap();
    let worker = Running::of(worker);
    let start = Instant::now();
    for number in 0..3 {
        installation.request("seq", &format!("k8s-{number}"), inputs(10, "[1]")).await;
        installation.publish(&format!("request.seq.echo-{number}.echo.say"), "{}").await;
    }
    for number in 0..3 {
        assert_eq!(installation.awaited("seq", &format!("k8s-{number}")).await.json(), &json!([1]));
        assert_eq!(installation.awaited("seq", &format!("echo-{number}")).await.body(), "of echo");
    }
    assert!(start.elapsed() < 20 * SECOND, "an app has to wait for the other: {:?}", start.elapsed());
    installation.all_answered().await;
    for (app, filter) in [("k8s", "acc-1.request.*.*.k8s.*"), ("echo", "acc-1.request.*.*.echo.*")] {
        let info = consumer_of(&installation, server.account(), app).await;
        assert_eq!((&*info.config.filter_subject, info.delivered.consumer_sequence), (filter, 3));
    }
    worker.stop().await;
    assert_eq!((pods.created().len(), pods.live()), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_for_a_missing_queue_does_not_contain_the_password() {
    let server = Server::start(MIB);
    let connect = |url: String| async {
        let connected =
            Worker::connect(WorkerOptions::new(url, server.account()), runners(pods()).await, Arc::default()).await;
        let error = connected.expect_err("there is no queue");
        assert!(!error.to_string().contains("xyz"), "{error}");
        error
    };
    assert!(matches!(connect(server.url()).await, QueueError::NoStream { stream, .. } if stream == server.account()));
    let wrong = server.url().replace("%40cr", "%40no");
    assert!(matches!(connect(wrong).await, QueueError::Refused { .. }));
    assert!(matches!(connect("http://acc:xyz@host".into()).await, QueueError::Address(_)));
    assert!(matches!(connect("nats://acc:xyz@host:port".into()).await, QueueError::Address(_)));
}
