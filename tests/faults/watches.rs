//! Watches that break, lie or say nothing.

use crate::harness::{Cluster, play};
use crate::kubelet::{exited, exits, running, runs_on};
use crate::server::Fault;
use crate::store::status;
use hops_k8s_tests::Document;
use rstest::rstest;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const FOR_EVER: usize = usize::MAX;

/// A pod that ends after half a minute.
fn slow() -> crate::kubelet::Script {
    vec![(100, running()), (30_000, exited(0))]
}

fn error_event(code: u16, reason: &str) -> Fault {
    Fault::Says(vec![json!({"type": "ERROR", "object": status(code, reason, "so it is").1})])
}

#[rstest]
#[case::ends_early(Fault::Short)]
#[case::ends_unheard(Fault::Says(vec![]))]
#[case::breaks_in_an_event(Fault::Breaks)]
#[case::has_an_outdated_version(error_event(410, "Expired"))]
#[case::has_an_error(error_event(500, "InternalError"))]
#[case::talks_nonsense(Fault::Says(vec!["nonsense".into()]))]
#[case::repeats_itself(Fault::Repeats)]
fn a_call_outlives_watches_that_break(#[case] fault: Fault) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault("watch all pods", 5, fault);
        let time = cluster.succeeds().await;
        assert!(time < Duration::from_secs(15), "{time:?} {:?}", cluster.requests("watch all pods"));
        cluster.end(1).await;
    });
}

#[test]
fn a_watch_that_has_gone_silent_holds_up_a_call_for_half_a_minute_at_most() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault("watch all pods", 1, Fault::Silent);
        let time = cluster.succeeds().await;
        assert!(time < Duration::from_secs(35), "{time:?}");
        cluster.end(1).await;
    });
}

#[test]
fn a_server_that_ends_every_watch_at_once_is_not_asked_at_full_speed() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(slow());
        cluster.fault("watch all pods", 30, Fault::Short);
        assert!(cluster.succeeds().await < Duration::from_secs(36));
        let watches = cluster.requests("watch all pods").len();
        assert!(watches < 30, "{watches} watches in half a minute");
        cluster.end(1).await;
    });
}

#[rstest]
fn what_happened_while_a_watch_was_broken_becomes_known(
    #[values(false, true)] forget: bool,
    #[values(false, true)] by_status: bool,
) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(slow());
        cluster.refuses_old.store(by_status, Ordering::Relaxed);
        let call = cluster.begin(json!({}));
        sleep(Duration::from_secs(5)).await;
        cluster.fault("watch all pods", FOR_EVER, Fault::Reset);
        cluster.cut(forget);
        sleep(Duration::from_secs(30)).await;
        cluster.heal();
        let healed = Instant::now();
        assert_eq!(call.await.unwrap().json(), &json!({"answer": 42}));
        assert!(healed.elapsed() < Duration::from_secs(20), "{:?}", healed.elapsed());
        cluster.end(1).await;
    });
}

#[rstest]
#[case::nobody_listens(Fault::Reset)]
#[case::shuts_down(Fault::Answer(status(503, "ServiceUnavailable", "the server is shutting down")))]
#[case::is_overloaded(Fault::Busy { seconds: 1 })]
#[case::says_nothing(Fault::Hang)]
fn a_call_outlives_an_outage_and_ends_soon_after(#[case] fault: Fault) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(slow());
        let call = cluster.begin(json!({}));
        sleep(Duration::from_secs(5)).await;
        cluster.fault("*", FOR_EVER, fault);
        cluster.cut(false);
        sleep(Duration::from_secs(120)).await;
        cluster.heal();
        let healed = Instant::now();
        assert_eq!(call.await.unwrap().json(), &json!({"answer": 42}));
        assert!(healed.elapsed() < Duration::from_secs(20), "{:?}", healed.elapsed());
        cluster.end(1).await;
    });
}

#[rstest]
#[case::outage(Fault::Reset, 300..360, "ClusterUnavailable: the API server at ")]
#[case::revoked(Fault::Answer(status(401, "Unauthorized", "Unauthorized")), 30..45, "Forbidden: the API server at ")]
fn a_call_without_news_for_too_long_ends_with_the_reason_and_its_pod_is_deleted_once_that_has_passed(
    #[case] fault: Fault,
    #[case] seconds: std::ops::Range<u64>,
    #[case] words: &str,
) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(runs_on());
        let call = cluster.begin(json!({}));
        sleep(Duration::from_secs(5)).await;
        cluster.fault("*", FOR_EVER, fault);
        cluster.cut(false);
        let start = Instant::now();
        let document: Document = call.await.unwrap();
        assert!(document.error().starts_with(words), "{}", document.error());
        assert!(seconds.contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        cluster.heal();
        cluster.end(1).await;
    });
}

#[test]
fn a_pod_that_was_deleted_while_nobody_watched_counts_as_deleted() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(runs_on());
        let call = cluster.begin(json!({}));
        sleep(Duration::from_secs(5)).await;
        cluster.fault("watch all pods", 5, Fault::Reset);
        cluster.cut(false);
        cluster.change(|store| store.remove_pod("uid-1"));
        cluster.cut(true);
        assert!(call.await.unwrap().error().starts_with("PodDeleted: "));
        cluster.end(1).await;
    });
}

#[test]
fn a_pod_on_the_third_page_is_found_though_the_second_page_had_expired() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(slow());
        for number in 0..1100 {
            let pod = json!({"metadata": {"name": format!("a-{number:04}")}});
            cluster.change(|store| store.create_pod("default", pod));
        }
        let call = cluster.begin(json!({}));
        sleep(Duration::from_secs(5)).await;
        cluster.fault("list all pods", 1, Fault::Nothing);
        cluster.fault("list all pods", 1, Fault::Answer(status(410, "Expired", "the continue token is too old")));
        cluster.cut(true);
        assert_eq!(call.await.unwrap().json(), &json!({"answer": 42}));
        assert_eq!(cluster.requests("list all pods").len(), 3 + 2 + 3);
        for number in 1..=1100 {
            cluster.change(|store| store.remove_pod(&format!("uid-{number}")));
        }
        cluster.end(1101).await;
    });
}

fn may_not(verb: &str) -> Fault {
    let words = format!("pods is forbidden: User \"u\" cannot {verb} resource \"pods\" in API group \"\"");
    Fault::Answer(status(403, "Forbidden", &words))
}

#[rstest]
#[case::list("list all pods", "list")]
#[case::watch("watch all pods", "watch")]
fn without_the_right_to_watch_the_cluster_its_namespaces_are_watched(#[case] what: &'static str, #[case] verb: &str) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault(what, FOR_EVER, may_not(verb));
        cluster.succeeds().await;
        assert_eq!(cluster.call(json!({"namespace": "other"})).await.error(), "");
        assert_eq!(cluster.requests(what).len(), 1);
        cluster.end(2).await;
    });
}

#[rstest]
#[case::list("list pods", "list")]
#[case::watch("watch pods", "watch")]
fn without_the_right_to_watch_anything_a_call_says_which_rule_is_missing(
    #[case] what: &'static str,
    #[case] verb: &str,
    #[values(0, 1)] creation_takes: u64,
) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault("create pods", 1, Fault::Slow(Duration::from_secs(creation_takes)));
        cluster.fault("list all pods", FOR_EVER, may_not("list"));
        cluster.fault(what, FOR_EVER, may_not(verb));
        let document = cluster.call(json!({})).await;
        let rule = format!(
            "a Role in namespace \"default\" with the rule {{apiGroups: [\"\"], resources: [\"pods\"], verbs: [\"{verb}\"]}}"
        );
        assert!(
            document.error().starts_with("Forbidden: ") && document.error().ends_with(&rule),
            "{}",
            document.error()
        );
        cluster.heal();
        cluster.end(1).await;
    });
}

#[test]
fn without_the_right_to_watch_the_cluster_any_more_the_namespace_is_watched() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(slow());
        let call = cluster.begin(json!({}));
        sleep(Duration::from_secs(5)).await;
        cluster.fault("watch all pods", FOR_EVER, may_not("watch"));
        cluster.cut(false);
        assert_eq!(call.await.unwrap().json(), &json!({"answer": 42}));
        cluster.end(1).await;
    });
}

#[test]
fn many_calls_share_one_watch() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(exits(0));
        let calls: Vec<_> = (0..50).map(|_| cluster.begin(json!({}))).collect();
        for call in calls {
            assert_eq!(call.await.unwrap().error(), "");
        }
        assert_eq!(cluster.requests("watch all pods").len(), 1);
        cluster.end(50).await;
    });
}
