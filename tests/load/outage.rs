//! Servers that go away for a while and come back, with calls in flight.

use super::ALONE;
use hops_k8s_tests::cluster::service::{Seen, awaited, kill, kube, no_pods, request, start};
use hops_k8s_tests::cluster::{Cluster, Route, ctl};
use hops_k8s_tests::nats::{Installation, Server};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const OUTAGE: Duration = Duration::from_secs(20);
const CALLS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_queue_that_goes_away_for_20_s_loses_nothing() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PodIp).await;
    let mut server = Server::start_for(&cluster.namespace, 1024 * 1024);
    let installation = Installation::start(&server).await;
    let seen = Seen::watch(&cluster);
    let worker = start(&server, Arc::new(kube().await)).await;
    request(&cluster, &installation, 0..CALLS, 5, json!({"start_timeout": "5m"})).await;
    seen.at_least(5).await;
    server.kill();
    tokio::time::sleep(OUTAGE).await;
    server.resume();
    awaited(&installation, CALLS).await;
    installation.all_answered().await;
    no_pods(&cluster).await;
    assert_eq!(seen.count(), CALLS, "pods created");
    kill(worker).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn an_api_server_that_goes_away_for_20_s_loses_nothing() {
    let Some(ctl) = ctl() else { return };
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PodIp).await;
    let server = Server::start_for(&cluster.namespace, 1024 * 1024);
    let installation = Installation::start(&server).await;
    let seen = Seen::watch(&cluster);
    let worker = start(&server, Arc::new(kube().await)).await;
    request(&cluster, &installation, 0..CALLS, 5, json!({"start_timeout": "5m"})).await;
    seen.at_least(5).await;
    ctl("stop", "kube-apiserver");
    tokio::time::sleep(OUTAGE).await;
    ctl("start", "kube-apiserver");
    awaited(&installation, CALLS).await;
    installation.all_answered().await;
    no_pods(&cluster).await;
    kill(worker).await;
    // The watch that counts the pods was interrupted as well, so pods that are left are looked for anew.
    let pods = Seen::watch(&cluster);
    assert_eq!((seen.count(), pods.count()), (CALLS, 0), "pods created, pods left");
    cluster.end().await;
}
