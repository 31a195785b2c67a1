//! Result servers, API servers and pods that mean harm. A container shares its network with the result server and may
//! answer in its place.

use crate::harness::{Cluster, Route, play};
use crate::kubelet::{Delivery, TAKEN, exited, running, with_server};
use crate::server::Fault;
use crate::store::status;
use hops_k8s::pods::Pods;
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::iter::repeat_n;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const FOR_EVER: usize = usize::MAX;
/// The most of a text that reaches a result.
const MOST_TEXT: usize = 64 << 10;

fn head(head: &str) -> String {
    head.replace('\n', "\r\n")
}

fn floods(start: &str, piece: &str) -> Delivery {
    Delivery::Floods(head(start), head(piece))
}

fn answers(head_lines: &str) -> Delivery {
    Delivery::Raw(head(&format!("HTTP/1.1 200 OK\n{head_lines}\n\n0123456789")))
}

#[rstest]
fn a_flood_is_not_taken_and_ends_in_an_error_in_time(
    #[values(Route::PodIp, Route::PortForward)] route: Route,
    #[values(
        floods("HTTP/1.1 200 OK\ncontent-length: 10\ntransfer-encoding: chunked\n\n", "5\naaaaa\n"),
        floods("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n", "5\naaaaa\n"),
        floods("HTTP/1.1 200 OK\ntransfer-encoding: gzip, chunked\n\n", "5\naaaaa\n"),
        floods("HTTP/1.1 200 OK\n\n", "a"),
        floods("HTTP/1.1 200 OK\ncontent-length: 100000000000\n\n", "a"),
        floods("HTTP/1.1 200 OK\nx: ", "a"),
        floods("HTTP/1.1 200 OK\n", "x: a\n"),
        floods("HTTP/1.1 200 ", "OK"),
        floods("", "HTTP/1.1 100 Continue\n\n"),
        floods("", "HTTP/1.1 103 Early Hints\nlink: </a>\n\n"),
        floods("HTTP/1.1 500 Internal Server Error\n\n", "a"),
        floods("", "a")
    )]
    delivery: Delivery,
) {
    play(async || {
        let cluster = Cluster::with(route, Duration::ZERO).await;
        cluster.results.script(repeat_n(delivery, 1000));
        let start = Instant::now();
        let document = cluster.call(json!({})).await;
        let error = document.error();
        assert!(error.starts_with("ResultUnavailable: ") || error.starts_with("ResultTooLarge: "), "{error}");
        assert!(error.len() < 300, "{error}");
        assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
        let taken = cluster.results.taken.load(Ordering::Relaxed);
        assert!(taken < TAKEN, "{taken} bytes");
        cluster.end(1).await;
    });
}

/// Each interim answer costs time to read, so not even a few are read.
#[test]
fn an_interim_answer_is_refused_at_once() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.results.script([floods("", "HTTP/1.1 100 Continue\n\n")]);
        cluster.succeeds().await;
        let taken = cluster.results.taken.load(Ordering::Relaxed);
        assert!(taken < TAKEN, "{taken} bytes");
        cluster.end(1).await;
    });
}

#[rstest]
#[case::no_number("content-length: ")]
#[case::negative("content-length: -1")]
#[case::signed("content-length: +10")]
#[case::hexadecimal("content-length: 0xa")]
#[case::over_64_bits("content-length: 18446744073709551616")]
#[case::two_that_agree("content-length: 10\ncontent-length: 10")]
#[case::two_that_differ("content-length: 10\ncontent-length: 5")]
#[case::a_list("content-length: 10, 10")]
#[case::beside_chunks("content-length: 10\ntransfer-encoding: identity")]
fn an_odd_length_is_not_believed(#[case] lines: &str, #[values(Route::PodIp, Route::PortForward)] route: Route) {
    play(async || {
        let cluster = Cluster::with(route, Duration::ZERO).await;
        cluster.results.script(repeat_n(answers(lines), 1000));
        let document = cluster.call(json!({})).await;
        assert!(document.error().starts_with("ResultUnavailable: "), "{:?}", document.0);
        cluster.end(1).await;
    });
}

#[rstest]
#[case("18446744073709551615")]
#[case("9223372036854775808")]
#[case("8388609")]
fn a_length_over_the_limit_is_not_read(#[case] length: &str, #[values(Route::PodIp, Route::PortForward)] route: Route) {
    play(async || {
        let cluster = Cluster::with(route, Duration::ZERO).await;
        cluster.results.script(repeat_n(floods(&format!("HTTP/1.1 200 OK\ncontent-length: {length}\n\n"), "a"), 1000));
        let document = cluster.call(json!({})).await;
        let error = document.error();
        assert!(error.starts_with("ResultTooLarge: ") || error.starts_with("ResultUnavailable: "), "{error}");
        assert!(cluster.results.taken.load(Ordering::Relaxed) < TAKEN);
        cluster.end(1).await;
    });
}

#[rstest]
fn a_file_that_drips_ends_in_an_error_soon(
    #[values(Route::PodIp, Route::PortForward)] route: Route,
    #[values((1, 5), (1000, 1), (100_000, 9))] (piece, seconds): (usize, u64),
) {
    play(async || {
        let cluster = Cluster::with(route, Duration::ZERO).await;
        let pause = Duration::from_secs(seconds);
        cluster.results.script(repeat_n(Delivery::Drips { length: 8_000_000, piece, pause }, 1000));
        let start = Instant::now();
        let document = cluster.call(json!({})).await;
        assert!(document.error().starts_with("ResultUnavailable: "), "{:?}", document.0);
        assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
        cluster.end(1).await;
    });
}

#[test]
fn a_large_file_on_a_slow_line_arrives() {
    play(async || {
        let cluster = Cluster::start().await;
        let pause = Duration::from_secs(1);
        cluster.results.script([Delivery::Drips { length: 8 << 20, piece: 64 << 10, pause }]);
        let document = cluster.call(json!({})).await;
        assert_eq!((document.error(), document.0["body"].as_str().unwrap().len()), ("", 8 << 20));
        cluster.end(1).await;
    });
}

#[rstest]
#[case::switches_protocols("HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: websocket\n\n")]
#[case::redirects("HTTP/1.1 302 Found\nlocation: http://127.0.0.1:1/\ncontent-length: 0\n\n")]
#[case::sends_a_part("HTTP/1.1 206 Partial Content\ncontent-length: 10\n\n0123456789")]
#[case::has_no_content("HTTP/1.1 204 No Content\n\n")]
fn an_answer_that_is_not_the_file_makes_an_error(
    #[case] answer: &str,
    #[values(Route::PodIp, Route::PortForward)] route: Route,
) {
    play(async || {
        let cluster = Cluster::with(route, Duration::ZERO).await;
        cluster.results.script(repeat_n(Delivery::Raw(head(answer)), 1000));
        let document = cluster.call(json!({})).await;
        assert!(document.error().starts_with("ResultUnavailable: "), "{:?}", document.0);
        assert_eq!(document.0["body"], "");
        cluster.end(1).await;
    });
}

/// Whether it is seen before the request or after it is chance, and does not matter.
#[rstest]
fn an_answer_before_the_request_is_taken_or_asked_for_again(#[values(Route::PodIp, Route::PortForward)] route: Route) {
    play(async || {
        let cluster = Cluster::with(route, Duration::ZERO).await;
        let answer = head("HTTP/1.1 200 OK\ncontent-length: 7\n\nunasked");
        cluster.results.script([Delivery::Unasked(answer)]);
        let document = cluster.call(json!({})).await;
        assert_eq!(document.error(), "");
        assert!(document.0["body"] == "unasked" || document.json() == &json!({"answer": 42}), "{:?}", document.0);
        cluster.end(1).await;
    });
}

fn squatted(main: Value, server: Value) -> Value {
    with_server("Running", main, server)
}

/// The container took the port, so the result server could not start and has ended.
#[rstest]
fn nothing_is_read_from_a_pod_whose_result_server_has_ended(#[values(Route::PodIp, Route::PortForward)] route: Route) {
    play(async || {
        let cluster = Cluster::with(route, Duration::ZERO).await;
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "address in use"}});
        cluster.script(vec![(100, running()), (1000, squatted(json!({"running": {}}), ended))]);
        let start = Instant::now();
        let document = cluster.call(json!({"timeout": "3s"})).await;
        assert!(document.error().starts_with("Timeout: "), "{}", document.error());
        assert_eq!((&document.0["body"], &document.0["json"]), (&json!(""), &Value::Null));
        assert_eq!(cluster.results.connections.load(Ordering::Relaxed), 0);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        cluster.end(1).await;
    });
}

#[test]
fn a_result_server_that_starts_late_is_waited_for_before_anything_is_read() {
    play(async || {
        let cluster = Cluster::start().await;
        let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
        let main = json!({"running": {}});
        cluster.script(vec![(100, squatted(main.clone(), waiting)), (10_000, running())]);
        let document = cluster.call(json!({"timeout": "3s"})).await;
        assert!(document.error().starts_with("Timeout: "), "{}", document.error());
        assert_eq!(document.json(), &json!({"answer": 42}));
        cluster.end(1).await;
    });
}

#[test]
fn a_result_server_that_does_not_start_is_given_up_in_time() {
    play(async || {
        let cluster = Cluster::start().await;
        let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
        cluster.script(vec![(100, squatted(json!({"running": {}}), waiting))]);
        let start = Instant::now();
        let document = cluster.call(json!({"timeout": "3s"})).await;
        assert!(document.error().starts_with("Timeout: "), "{}", document.error());
        assert_eq!(cluster.results.connections.load(Ordering::Relaxed), 0);
        assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
        cluster.end(1).await;
    });
}

#[test]
fn the_address_of_a_pod_is_not_looked_up_by_name() {
    play(async || {
        let cluster = Cluster::start().await;
        let mut status = exited(0);
        status["podIP"] = "localhost".into();
        cluster.script(vec![(100, status)]);
        let document = cluster.call(json!({})).await;
        assert!(document.error().starts_with("ResultUnavailable: "), "{:?}", document.0);
        cluster.end(1).await;
    });
}

fn long() -> String {
    "x".repeat(1 << 20)
}

fn condition(kind: &str, value: &str) -> Value {
    json!([{"type": kind, "status": value, "reason": "Unschedulable", "message": long()}])
}

#[rstest]
#[case::termination_message(squatted(
    json!({"terminated": {"exitCode": 3, "reason": "Error", "message": long()}}),
    json!({"running": {}})
))]
#[case::reason_for_waiting(squatted(json!({"waiting": {"reason": long()}}), json!({"waiting": {}})))]
#[case::message_for_waiting(squatted(
    json!({"waiting": {"reason": "InvalidImageName", "message": long()}}),
    json!({"waiting": {}})
))]
#[case::scheduler(json!({"phase": "Pending", "conditions": condition("PodScheduled", "False")}))]
#[case::disruption(json!({"phase": "Failed", "conditions": condition("DisruptionTarget", "True")}))]
#[case::pod(json!({"phase": "Failed", "reason": "Evicted", "message": long()}))]
#[case::reason_of_pod(json!({"phase": "Failed", "reason": long()}))]
fn a_status_with_a_very_long_text_makes_a_short_error(#[case] status: Value) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(vec![(100, status)]);
        let document = cluster.call(json!({"start_timeout": "5s"})).await;
        let size = document.error().len();
        assert!((1..MOST_TEXT).contains(&size), "{size} bytes");
        cluster.end(1).await;
    });
}

#[test]
fn an_api_server_that_refuses_at_great_length_makes_a_short_error() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault("create pods", FOR_EVER, Fault::Answer(status(403, "Forbidden", &long())));
        let document = cluster.call(json!({})).await;
        let size = document.error().len();
        assert!((1..MOST_TEXT).contains(&size), "{size} bytes");
        cluster.end(0).await;
    });
}

#[rstest]
fn an_answer_of_the_api_server_without_an_end_is_given_up(
    #[values("create pods", "delete pods", "list all pods", "watch all pods")] what: &'static str,
    #[values((200, "{\"a\":\"", "a"), (200, "[", "{},"), (500, "", "a\n"))] (code, start, piece): (
        u16,
        &'static str,
        &'static str,
    ),
) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault(what, 1, Fault::Floods(code, start, piece));
        cluster.succeeds().await;
        let taken = cluster.taken.load(Ordering::Relaxed);
        assert!(taken < TAKEN, "{taken} bytes");
        cluster.end(1).await;
    });
}

/// Neither is it asked for again, because it would be no shorter.
#[test]
fn an_answer_without_an_end_to_a_creation_of_input_files_ends_the_call() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault("create configmaps", FOR_EVER, Fault::Floods(200, "", "a"));
        let document = cluster.call(json!({})).await;
        assert!(document.error().starts_with("ClusterUnavailable: "), "{}", document.error());
        assert_eq!(cluster.requests("create configmaps").len(), 1);
        cluster.end(1).await;
    });
}

#[test]
fn a_list_of_pods_without_an_end_does_not_keep_calls_waiting_for_ever() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(vec![(100, running())]);
        let answer = json!({
            "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1", "continue": "more"}, "items": [],
        });
        cluster.fault("list all pods", FOR_EVER, Fault::SlowAnswer(Duration::from_secs(5), (200, answer)));
        let document = cluster.call(json!({"start_timeout": "1h"})).await;
        assert!(document.error().starts_with("ClusterUnavailable: "), "{}", document.error());
        cluster.heal();
        cluster.end(1).await;
    });
}

#[test]
fn the_end_of_a_log_without_an_end_is_short() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(vec![(100, running())]);
        cluster.fault("get pods/log", FOR_EVER, Fault::Floods(200, "", "all work and no play\n"));
        let document = cluster.call(json!({"timeout": "3s"})).await;
        assert!(document.error().starts_with("Timeout: "), "{}", document.error());
        assert!(document.error().contains("all work and no play"), "{}", document.error());
        assert!(document.error().len() < MOST_TEXT);
        let taken = cluster.taken.load(Ordering::Relaxed);
        assert!(taken < TAKEN, "{taken} bytes");
        cluster.end(1).await;
    });
}

/// Other users of the cluster decide how large their pods are.
#[test]
fn a_page_of_large_pods_is_listed_in_smaller_pages() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(vec![(100, running()), (30_000, exited(0))]);
        for number in 0..10 {
            let metadata = json!({"name": format!("a-{number:04}"), "annotations": {"large": long().repeat(2)}});
            cluster.change(|store| store.create_pod("default", json!({"metadata": metadata})));
        }
        let call = cluster.begin(json!({}));
        sleep(Duration::from_secs(5)).await;
        cluster.cut(true);
        assert_eq!(call.await.unwrap().json(), &json!({"answer": 42}));
        assert!(cluster.requests("list all pods").len() > 2);
        for number in 1..=10 {
            cluster.change(|store| store.remove_pod(&format!("uid-{number}")));
        }
        cluster.end(11).await;
    });
}

#[test]
fn pods_of_earlier_calls_are_found_page_by_page() {
    play(async || {
        let cluster = Cluster::start().await;
        for number in 0..1100 {
            let pod = json!({"metadata": {"name": format!("a-{number:04}")}});
            cluster.change(|store| store.create_pod("default", pod));
        }
        let found = cluster.pods.find(&BTreeMap::new()).await.unwrap();
        assert_eq!((found.len(), cluster.requests("list all pods").len()), (1100, 3));
        for number in 1..=1100 {
            cluster.change(|store| store.remove_pod(&format!("uid-{number}")));
        }
        cluster.end(1100).await;
    });
}
