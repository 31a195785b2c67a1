//! A node that is full of our own pods, and quotas.

use super::ALONE;
use hops_k8s_tests::cluster::service::{Seen, awaited, kill, kube, no_pods, request, start_with};
use hops_k8s_tests::cluster::{Cluster, MINUTE, Route};
use hops_k8s_tests::eventually;
use hops_k8s_tests::nats::{Installation, Server};
use k8s_openapi::api::core::v1 as k8s;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LARGE: usize = 60;

/// The node has 2 CPUs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn pods_wait_for_room_and_small_ones_fill_the_gaps() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PodIp).await;
    let server = Server::start_for(&cluster.namespace, 1024 * 1024);
    let installation = Installation::start(&server).await;
    let seen = Seen::watch(&cluster);
    let worker = start_with(&server, Arc::new(kube().await), 1000).await;
    // With three at a time, they take longer in all than their start_timeout.
    request(&cluster, &installation, 0..LARGE, 1, json!({"cpu": "500m", "start_timeout": "20s"})).await;
    seen.at_least(LARGE / 4).await;
    let small = cluster.inputs(json!({"command": ["bash", "-c", "echo [] > /output/result.json"]}));
    let began = Instant::now();
    installation.request("seq", "small", small.to_string()).await;
    assert_eq!(installation.awaited("seq", "small").await.error(), "");
    let took = began.elapsed();
    println!("a small pod in the middle took {took:?}");
    assert!(installation.result("seq", &(LARGE - 1).to_string()).await.is_none(), "large ones still wait");
    assert!(took < Duration::from_secs(8), "{took:?}");
    awaited(&installation, LARGE).await;
    println!("{LARGE} large pods took {:?} from there", began.elapsed());
    installation.all_answered().await;
    no_pods(&cluster).await;
    assert_eq!(seen.count(), LARGE + 1, "pods created");
    kill(worker).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn what_can_never_fit_does_not_wait_for_room() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PodIp).await;
    let (one, other) = tokio::join!(
        cluster.call(json!({"command": ["sleep", "8"]})),
        cluster.call(json!({"command": ["true"], "cpu": "1000", "start_timeout": "3s"})),
    );
    assert_eq!(one.error(), "");
    let error = other.error();
    assert!(error.starts_with("StartTimeout: the container did not start within 3s: 0/1 nodes"), "{error}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_quota_that_pods_of_this_process_use_up_is_waited_for() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PodIp).await;
    let quota = |name: &str, pods: &str| json!({"metadata": {"name": name}, "spec": {"hard": {"pods": pods}}});
    let _: k8s::ResourceQuota = cluster.create(quota("three", "3")).await;
    in_force(&cluster, "three").await;
    let calls = (0..12).map(|_| cluster.call(json!({"command": ["sleep", "1"], "start_timeout": "20s"})));
    for document in futures::future::join_all(calls).await {
        assert_eq!(document.error(), "");
    }
    let _: k8s::ResourceQuota = cluster.create(quota("none", "0")).await;
    in_force(&cluster, "none").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let began = Instant::now();
    let document = cluster.call(json!({"command": ["true"]})).await;
    assert!(document.error().starts_with("QuotaExceeded: "), "{document:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    cluster.end().await;
}

/// Waits until the quota has its first count. Before that it lets nothing be created.
async fn in_force(cluster: &Cluster, name: &str) {
    let quotas = cluster.api::<k8s::ResourceQuota>();
    eventually("the quota is in force", MINUTE, async || {
        let status = quotas.get(name).await.unwrap().status;
        status.and_then(|status| status.used).filter(|used| !used.is_empty()).ok_or("not yet")
    })
    .await;
}
