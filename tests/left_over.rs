//! Runs after all other tests, and checks that they have left nothing on the cluster or on this machine.

use hops_k8s_tests::cluster::{MINUTE, administrator};
use hops_k8s_tests::{eventually, hops, target};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use std::fs;

/// A test that succeeds deletes its namespace, which takes a moment. The namespaces of failed tests stay.
#[tokio::test]
#[ignore = "needs a cluster, and the other tests to have run"]
async fn no_pod_and_no_config_map_is_left() {
    let client = administrator().await;
    eventually("nothing is left of the tests", MINUTE, async || {
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=hops-k8s");
        let pods = Api::<Pod>::all(client.clone()).list(&ours).await.unwrap();
        let maps = Api::<ConfigMap>::all(client.clone()).list(&ours).await.unwrap();
        let namespaces = Api::<Namespace>::all(client.clone()).list(&ListParams::default()).await.unwrap();
        let mut left: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
        left.extend(maps.iter().map(ResourceExt::name_any));
        left.extend(namespaces.iter().map(ResourceExt::name_any).filter(|name| name.starts_with("hops-test-")));
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

#[test]
#[ignore = "needs the other tests to have run"]
fn no_process_is_left() {
    let programs = [hops().to_owned(), target().join("tools/nats-server")];
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path().join("exe")).ok());
    let left: Vec<_> = processes.filter(|program| programs.contains(program)).collect();
    assert!(left.is_empty(), "{left:?}");
}
