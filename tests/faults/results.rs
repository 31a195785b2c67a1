//! Results that are hard to get.

use crate::harness::{Cluster, Route, play};
use crate::kubelet::{Delivery, RESULT, exits};
use crate::server::Fault;
use crate::store::status;
use rstest::rstest;
use serde_json::json;
use std::time::Duration;

fn raw(answer: &str) -> Delivery {
    Delivery::Raw(answer.replace('\n', "\r\n").replace("RESULT", RESULT))
}

#[rstest]
fn a_result_server_that_fails_at_first_is_asked_again(
    #[values(Route::PodIp, Route::PortForward)] route: Route,
    #[values(
        Delivery::Hangs,
        Delivery::Closes,
        Delivery::Stalls,
        raw("HTTP/1.1 500 Internal Server Error\ncontent-length: 4\n\noops"),
        raw("HTTP/1.1 200 OK\ncontent-length: 1000\n\nRESULT"),
        raw("HTTP/1.1 200 OK\n\nRESULT"),
        raw("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n4\n{\"an"),
        raw("SSH-2.0-OpenSSH_9.9\n"),
        Delivery::Resets
    )]
    delivery: Delivery,
) {
    play(async || {
        let cluster = Cluster::with(route, Duration::ZERO).await;
        cluster.results.script([delivery]);
        cluster.succeeds().await;
        cluster.end(1).await;
    });
}

#[rstest]
fn a_result_server_that_does_not_listen_yet_is_waited_for(#[values(Route::PodIp, Route::PortForward)] route: Route) {
    play(async || {
        let cluster = Cluster::with(route, Duration::from_secs(5)).await;
        cluster.succeeds().await;
        cluster.end(1).await;
    });
}

#[rstest]
#[case::redirects(
    raw("HTTP/1.1 301 Moved Permanently\nlocation: /result.json/\ncontent-length: 0\n\n"),
    0..5,
    "the result server answered 301 Moved Permanently; is it a regular file?"
)]
#[case::hangs(Delivery::Hangs, 20..40, "does not deliver: no answer within 5 s")]
#[case::is_cut_off(Delivery::Closes, 20..40, "does not deliver: connection closed before message completed")]
fn a_result_that_cannot_be_read_makes_an_error_in_time(
    #[case] delivery: Delivery,
    #[case] seconds: std::ops::Range<u64>,
    #[case] words: &str,
    #[values(Route::PodIp, Route::PortForward)] route: Route,
) {
    play(async || {
        let cluster = Cluster::with(route, Duration::ZERO).await;
        cluster.results.script(std::iter::repeat_n(delivery, 1000));
        let start = tokio::time::Instant::now();
        let document = cluster.call(json!({})).await;
        assert!(document.error().starts_with("ResultUnavailable: result.json could not be read: "));
        assert!(document.error().ends_with(words), "{}", document.error());
        assert!(seconds.contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        cluster.end(1).await;
    });
}

#[test]
fn a_result_that_hangs_delays_no_other() {
    play(async || {
        let cluster = Cluster::start().await;
        let others = async || futures::future::join_all((1..50).map(|_| cluster.succeeds())).await;
        let alone = others().await;
        cluster.results.script([Delivery::Hangs]);
        let hanging = cluster.begin(json!({}));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let beside = others().await;
        let [alone, beside] = [alone, beside].map(|times| times.into_iter().max().unwrap());
        println!("49 calls, the slowest: {alone:?}, beside one that hangs {beside:?}");
        assert!(beside < alone * 2);
        assert_eq!(hanging.await.unwrap().error(), "");
        cluster.end(99).await;
    });
}

/// The times in a pod's status come from the clock of its node.
#[rstest]
fn a_node_whose_clock_is_wrong_changes_nothing(#[values("1999-01-01T00:00:00Z", "2099-01-01T00:00:00Z")] time: &str) {
    play(async || {
        let cluster = Cluster::start().await;
        let mut script = exits(0);
        for (_, status) in &mut script {
            status["startTime"] = json!(time);
            let state = &mut status["containerStatuses"][0]["state"];
            for (kind, at) in [("running", "startedAt"), ("terminated", "startedAt"), ("terminated", "finishedAt")] {
                if state[kind].is_object() {
                    state[kind][at] = json!(time);
                }
            }
        }
        cluster.server.script(script);
        let document = cluster.call(json!({"timeout": "5s", "start_timeout": "5s"})).await;
        assert_eq!((document.error(), document.json()), ("", &json!({"answer": 42})));
        let year = &time[..4];
        assert!(!document.0["hops"].to_string().contains(year), "{document:?}");
        cluster.end(1).await;
    });
}

#[rstest]
#[case::says_so(Fault::Answer(status(503, "ServiceUnavailable", "the server is shutting down")))]
#[case::is_overloaded(Fault::Busy { seconds: 1 })]
#[case::closes_connections(Fault::Reset)]
#[case::says_nothing(Fault::Hang)]
fn a_result_outlasts_an_outage_of_the_server_on_the_way_to_it(#[case] fault: Fault) {
    play(async || {
        let cluster = Cluster::with(Route::PortForward, Duration::ZERO).await;
        cluster.fault("get pods/portforward", usize::MAX, fault);
        let call = cluster.begin(json!({}));
        tokio::time::sleep(Duration::from_secs(90)).await;
        cluster.heal();
        assert_eq!(call.await.unwrap().error(), "");
        cluster.end(1).await;
    });
}
