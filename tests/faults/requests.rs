//! Requests to the API server that fail, or seem to.

use crate::harness::{Access, Cluster, MAX_WAIT, play, until};
use crate::kubelet::runs_on;
use crate::server::Fault;
use crate::store::status;
use rstest::rstest;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const FOR_EVER: usize = usize::MAX;

fn unavailable() -> Fault {
    Fault::Answer(status(503, "ServiceUnavailable", "the server is shutting down"))
}

fn internal() -> Fault {
    Fault::Answer(status(500, "InternalError", "etcdserver: leader changed"))
}

#[test]
fn a_call_on_a_good_day_costs_four_requests_and_leaves_nothing() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.succeeds().await;
        for (what, times) in [("create pods", 1), ("create configmaps", 1), ("delete pods", 1), ("get pods", 0)] {
            assert_eq!(cluster.requests(what).len(), times, "{what}");
        }
        cluster.end(1).await;
    });
}

#[rstest]
fn a_request_that_fails_some_times_is_tried_again(
    #[values("create pods", "create configmaps", "delete pods", "list all pods", "watch all pods")] what: &'static str,
    #[values(internal(), unavailable(), Fault::Reset, Fault::Busy { seconds: 1 })] fault: Fault,
) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault(what, 3, fault);
        cluster.succeeds().await;
        assert!(cluster.requests(what).len() > 3);
        cluster.end(1).await;
    });
}

#[rstest]
fn a_request_that_is_not_answered_is_given_up_in_time_and_tried_again(
    #[values("create pods", "create configmaps", "delete pods", "list all pods", "watch all pods")] what: &'static str,
    #[values(Fault::Hang, Fault::Stall)] fault: Fault,
) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault(what, 1, fault);
        assert!(cluster.succeeds().await < Duration::from_secs(35));
        cluster.end(1).await;
    });
}

#[rstest]
fn a_request_that_was_done_and_seemed_to_fail_is_not_done_twice(
    #[values("create pods", "create configmaps", "delete pods")] what: &'static str,
    #[values(
        Fault::Lost,
        Fault::DoneBut(status(500, "InternalError", "timed out")),
        Fault::DoneBut(status(504, "Timeout", "timed out"))
    )]
    fault: Fault,
) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault(what, 1, fault);
        cluster.succeeds().await;
        cluster.end(1).await;
    });
}

#[test]
fn connections_that_died_unnoticed_do_not_use_up_the_patience() {
    play(async || {
        let cluster = Cluster::start().await;
        let calls: Vec<_> = (0..10).map(|_| cluster.begin(json!({}))).collect();
        for call in calls {
            assert_eq!(call.await.unwrap().error(), "");
        }
        cluster.deafen();
        assert!(cluster.succeeds().await < Duration::from_secs(50));
        cluster.end(11).await;
    });
}

#[rstest]
fn retry_after_is_heeded_however_long_it_is(
    #[values(Access::Kubeconfig, Access::Proxy, Access::Config, Access::Client)] access: Access,
) {
    play(async || {
        let cluster = Cluster::reached_by(access).await;
        cluster.fault("create pods", 1, Fault::Busy { seconds: 20 });
        cluster.succeeds().await;
        let [refused, done] = cluster.requests("create pods")[..] else { panic!("two requests") };
        let pause = done - refused;
        assert!(pause >= Duration::from_secs(20) && pause < Duration::from_secs(22), "{pause:?}");
        cluster.end(1).await;
    });
}

#[test]
fn pods_that_conflict_over_a_quota_are_created_all_the_same() {
    play(async || {
        let cluster = Cluster::start().await;
        let words = "Operation cannot be fulfilled on resourcequotas \"q\": the object has been modified; please apply \
                     your changes to the latest version and try again";
        cluster.fault("create pods", 3, Fault::Answer(status(409, "Conflict", words)));
        cluster.succeeds().await;
        cluster.end(1).await;
    });
}

#[rstest]
#[case::says_so(unavailable(), "is in trouble: the server is shutting down")]
#[case::closes_connections(Fault::Reset, "does not answer: connection closed before message completed")]
#[case::says_nothing(Fault::Hang, "does not answer: no answer within 15 s")]
fn a_server_that_is_out_for_too_long_makes_an_error_with_its_address_and_words(
    #[case] fault: Fault,
    #[case] words: &str,
) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault("*", FOR_EVER, fault);
        let document = cluster.call(json!({})).await;
        let start = format!("ClusterUnavailable: the API server at {} {words}", cluster.pods.address().unwrap());
        assert!(document.error().starts_with(&start), "{}", document.error());
        cluster.heal();
        cluster.end(0).await;
    });
}

#[test]
fn credentials_that_are_not_accepted_make_an_error_at_once() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault("*", FOR_EVER, Fault::Answer(status(401, "Unauthorized", "Unauthorized")));
        let document = cluster.call(json!({})).await;
        let words = format!(
            "Forbidden: the API server at {} does not accept the credentials, which may have expired or been revoked; \
             log in again",
            cluster.pods.address().unwrap()
        );
        assert_eq!(document.error(), words);
        assert_eq!(cluster.requests("create pods").len(), 1);
        cluster.end(0).await;
    });
}

#[test]
fn a_pod_whose_input_files_are_refused_is_deleted() {
    play(async || {
        let cluster = Cluster::start().await;
        let words = "configmaps is forbidden: User \"u\" cannot create resource \"configmaps\"";
        cluster.fault("create configmaps", FOR_EVER, Fault::Answer(status(403, "Forbidden", words)));
        let document = cluster.call(json!({})).await;
        assert!(document.error().starts_with(&format!("Forbidden: {words}; what is missing is a Role in namespace")));
        cluster.end(1).await;
    });
}

#[test]
fn a_quota_that_pods_of_this_process_use_up_is_waited_for_up_to_a_limit() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(runs_on());
        let running = cluster.begin(json!({}));
        until("its pod is there", || cluster.store().created == 1).await;
        let words = "pods \"p\" is forbidden: exceeded quota: q";
        cluster.fault("create pods", FOR_EVER, Fault::Answer(status(403, "Forbidden", words)));
        let start = Instant::now();
        let document = tokio::time::timeout(MAX_WAIT * 2, cluster.call(json!({}))).await.expect("it ends");
        assert_eq!(document.error(), format!("QuotaExceeded: {words}"));
        assert!(start.elapsed() >= MAX_WAIT, "{:?}", start.elapsed());
        running.abort();
        running.await.unwrap_err();
        cluster.end(1).await;
    });
}

/// The pod that the first try created uses up the quota, so the second try is refused.
#[test]
fn a_pod_whose_creation_went_unheard_is_found_when_it_cannot_be_created_again() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault("create pods", 1, Fault::Lost);
        let words = "pods \"p\" is forbidden: exceeded quota: q";
        cluster.fault("create pods", FOR_EVER, Fault::Answer(status(403, "Forbidden", words)));
        cluster.succeeds().await;
        cluster.end(1).await;
    });
}

#[rstest]
#[case::when_it_exists_already(vec![])]
#[case::when_it_cannot_be_created_again(vec![Fault::Answer(status(403, "Forbidden", "exceeded quota: q"))])]
#[case::when_the_server_goes_away(vec![unavailable()])]
#[case::when_the_credentials_are_revoked(vec![Fault::Answer(status(401, "Unauthorized", "Unauthorized"))])]
fn a_pod_whose_creation_went_unheard_is_deleted_when_it_cannot_be_looked_at(#[case] next: Vec<Fault>) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault("create pods", 1, Fault::Lost);
        for fault in next {
            cluster.fault("create pods", FOR_EVER, fault);
        }
        cluster.fault("get pods", FOR_EVER, unavailable());
        let document = cluster.call(json!({})).await;
        assert_ne!(document.error(), "");
        cluster.heal();
        cluster.end(1).await;
    });
}

#[rstest]
fn a_call_that_is_dropped_while_its_pod_is_created_leaves_none(
    #[values(Fault::Slow(Duration::from_secs(2)), Fault::Lost, Fault::Hang)] fault: Fault,
) {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.script(runs_on());
        cluster.fault("create pods", 1, fault);
        let call = cluster.begin(json!({}));
        until("the request is under way", || !cluster.requests("create pods").is_empty()).await;
        call.abort();
        call.await.unwrap_err();
        cluster.end(1).await;
    });
}

#[test]
fn a_deletion_goes_on_for_longer_than_its_call() {
    play(async || {
        let cluster = Cluster::start().await;
        cluster.fault("delete pods", FOR_EVER, internal());
        cluster.succeeds().await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(cluster.store().pods.len(), 1);
        cluster.heal();
        cluster.end(1).await;
    });
}
