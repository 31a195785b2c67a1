//! Calls that are made again, as after a crash, and find the pod of the earlier call.

use crate::harness::{Cluster, play, until};
use crate::kubelet::{exited, running};
use crate::server::Fault;
use hops_k8s::plugin::CallCtx;
use hops_k8s::pods::Identity;
use hops_k8s::policy::Policy;
use hops_k8s_tests::{Document, plugin};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

fn begin(cluster: &Cluster, identity: &Identity) -> JoinHandle<Document> {
    let ctx = CallCtx::new(cluster.pods.clone(), Arc::new(Policy::default())).identity(identity.clone());
    let inputs = json!({"image": "bash:5", "in_files": {"a.txt": "input"}}).to_string();
    tokio::spawn(async move { Document::parse(plugin().call(ctx, "run", &inputs).await.unwrap().text()) })
}

fn identity() -> Identity {
    Identity { outlives_call: true, ..Identity::random() }
}

async fn abort(call: JoinHandle<Document>) {
    call.abort();
    call.await.unwrap_err();
}

async fn with_slow_pods() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.script(vec![(100, running()), (5_000, exited(0))]);
    cluster
}

#[test]
fn a_call_that_is_made_again_adopts_its_pod() {
    play(async || {
        let (cluster, identity) = (with_slow_pods().await, identity());
        let first = begin(&cluster, &identity);
        sleep(Duration::from_secs(2)).await;
        abort(first).await;
        assert_eq!(begin(&cluster, &identity).await.unwrap().json(), &json!({"answer": 42}));
        cluster.end(1).await;
    });
}

#[test]
fn a_call_ignores_the_end_of_an_earlier_pod_of_its_name() {
    play(async || {
        let (cluster, identity) = (with_slow_pods().await, identity());
        let first = begin(&cluster, &identity);
        sleep(Duration::from_secs(2)).await;
        abort(first).await;
        // The end of the first pod then arrives after the second pod was created, and before news of the second.
        cluster.fault("watch all pods", usize::MAX, Fault::Late(Duration::from_secs(1)));
        cluster.cut(false);
        let key = ("default".to_owned(), identity.name.clone());
        cluster.change(|store| store.delete_pod(&key, None));
        let second = begin(&cluster, &identity);
        sleep(Duration::from_secs(3)).await;
        cluster.change(|store| store.remove_pod("uid-1"));
        let document = second.await.unwrap();
        assert_eq!((document.error(), document.json()), ("", &json!({"answer": 42})));
        cluster.end(2).await;
    });
}

#[test]
fn a_call_that_ends_late_leaves_the_next_of_its_identity_its_news() {
    play(async || {
        let (cluster, identity) = (with_slow_pods().await, identity());
        cluster.fault("create pods", 1, Fault::Slow(Duration::from_secs(2)));
        let first = begin(&cluster, &identity);
        until("the first is under way", || !cluster.requests("create pods").is_empty()).await;
        abort(first).await;
        let document = begin(&cluster, &identity).await.unwrap();
        assert_eq!((document.error(), document.json()), ("", &json!({"answer": 42})));
        cluster.end(1).await;
    });
}
