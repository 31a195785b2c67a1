//! Pods that others end, and pods that cannot start.

use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s_tests::cluster::{Cluster, MINUTE, Route};
use hops_k8s_tests::{Document, eventually};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, EvictParams};
use rstest::rstest;
use serde_json::{Value, json};
use std::sync::Arc;

/// Runs a call, and disturbs its pod once the pod is in this state.
async fn disturbed(cluster: &Cluster, inputs: Value, state: &str, disturbance: Disturbance) -> Document {
    let disturb = async {
        let pods = cluster.api::<Pod>();
        let pod = eventually("the pod is in the state to be disturbed in", MINUTE, async || {
            let pod = cluster.the_pod().await;
            if state_of(&pod) == state { Ok(pod) } else { Err(state_of(&pod).to_owned()) }
        })
        .await;
        let name = pod.name_any();
        match disturbance {
            Disturbance::Deletion => drop(pods.delete(&name, &DeleteParams::default().grace_period(1)).await.unwrap()),
            Disturbance::Eviction => drop(pods.evict(&name, &EvictParams::default()).await.unwrap()),
            Disturbance::OfNamespace => {
                let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
                namespaces.delete(&cluster.namespace, &DeleteParams::default()).await.unwrap();
            }
        }
    };
    tokio::join!(cluster.call(inputs), disturb).0
}

#[derive(Clone, Copy)]
enum Disturbance {
    Deletion,
    Eviction,
    OfNamespace,
}

fn state_of(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let main = containers.and_then(|all| all.iter().find(|container| container.name == "main"));
    match main.and_then(|main| main.state.as_ref()) {
        Some(state) if state.running.is_some() => "running",
        Some(state) if state.terminated.is_some() => "ended",
        _ => "pending",
    }
}

const SLEEP: &str = "echo -n early > /output/result.json; sleep 60";

#[rstest]
#[case::while_pending(json!({"cpu": "4000"}), "pending", Disturbance::Deletion, "PodDeleted: ")]
#[case::while_running(json!({"command": ["bash", "-c", SLEEP]}), "running", Disturbance::Deletion, "PodDeleted: ")]
#[case::evicted(json!({"command": ["bash", "-c", SLEEP]}), "running", Disturbance::Eviction, "Evicted: ")]
#[case::with_its_namespace(json!({"command": ["bash", "-c", SLEEP]}), "running", Disturbance::OfNamespace, "PodDeleted: ")]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_pod_that_others_end_is_an_error_at_once(
    #[case] inputs: Value,
    #[case] state: &str,
    #[case] disturbance: Disturbance,
    #[case] error: &str,
) {
    let cluster = Cluster::start(Route::PodIp).await;
    let document = disturbed(&cluster, inputs, state, disturbance).await;
    assert!(document.error().starts_with(error), "{document:?}");
    if !matches!(disturbance, Disturbance::OfNamespace) {
        cluster.end().await;
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_namespace_that_is_being_deleted_takes_no_pods() {
    let cluster = Cluster::start(Route::PodIp).await;
    let keep = json!({"metadata": {"name": "keep", "finalizers": ["hops.test/keep"]}, "data": {}});
    let keep: k8s_openapi::api::core::v1::ConfigMap = cluster.create(keep).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete(&cluster.namespace, &DeleteParams::default()).await.unwrap();
    let document = cluster.call(json!({"command": ["true"]})).await;
    assert!(
        document.error().starts_with("Forbidden: ") && document.error().contains("being terminated"),
        "{document:?}"
    );
    let patch = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    cluster
        .api::<k8s_openapi::api::core::v1::ConfigMap>()
        .patch(&keep.name_any(), &Default::default(), &patch)
        .await
        .unwrap();
}

#[rstest]
#[case::no_such_repository(
    "registry.example/nobody/app:1",
    "ErrImagePull: ",
    "registry.example/nobody/app:1: not found"
)]
#[case::no_such_tag("bash:no-such-tag", "ErrImagePull: ", "no-such-tag")]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn an_image_that_cannot_be_pulled_is_named(#[case] image: &str, #[case] error: &str, #[case] words: &str) {
    let cluster = Cluster::start(Route::PodIp).await;
    let document = cluster.call(json!({"image": image, "command": ["true"]})).await;
    assert!(document.error().starts_with(error) && document.error().contains(words), "{document:?}");
    cluster.end().await;
}

/// The result server's image is one that ends at once.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_result_server_that_crashes_is_named() {
    let mut cluster = Cluster::start(Route::PodIp).await;
    let mut options = KubeOptions::default();
    options.server_image = "bash:5-alpine3.18".into();
    cluster.pods = Arc::new(KubePods::connect_by_pod_ip(options).await.unwrap());
    let document = cluster.bash("sleep 2; echo -n lost > /output/result.json").await;
    assert_eq!(
        document.error(),
        "ResultUnavailable: the result server ended (Completed, exit code 0) before the result was read"
    );
    cluster.end().await;
}

#[rstest]
#[case::directory("mkdir /output/result.json", "ResultUnavailable: ")]
#[case::dangling_link("ln -s nowhere /output/result.json", "")]
#[case::pipe("mkfifo /output/result.json", "ResultUnavailable: ")]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_result_file_that_is_not_a_regular_file_gives_no_result(#[case] script: &str, #[case] error: &str) {
    let cluster = Cluster::start(Route::PodIp).await;
    let document = cluster.bash(script).await;
    assert!(document.error().starts_with(error) && document.error().is_empty() == error.is_empty(), "{document:?}");
    assert_eq!(document.body(), "");
    cluster.end().await;
}

#[rstest]
#[case::just_under_32_kib(32 * 1024 - 1)]
#[case::just_over_32_kib(32 * 1024 + 1)]
#[case::eight_mebibytes(8 * 1024 * 1024)]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_result_of_any_size_within_the_limit_is_whole(#[case] size: usize) {
    let cluster = Cluster::start(Route::PodIp).await;
    let document = cluster.bash(&format!("head -c {size} /dev/zero | tr '\\0' x > /output/result.json")).await;
    assert_eq!((document.error(), document.body().len()), ("", size));
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_thousand_input_files_arrive() {
    let cluster = Cluster::start(Route::PodIp).await;
    let files: serde_json::Map<String, Value> =
        (0..1000).map(|number| (format!("dir {}/file-{number}.txt", number % 7), number.to_string().into())).collect();
    let script = "find /input -follow -type f -not -path '*/..*' | wc -l > /output/result.json";
    let document = cluster.call(json!({"command": ["bash", "-c", script], "in_files": files})).await;
    assert_eq!((document.error(), document.json()), ("", &json!(1000)));
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn sixteen_mebibytes_of_input_files_arrive() {
    let cluster = Cluster::start(Route::PodIp).await;
    let files: serde_json::Map<String, Value> =
        (0..32).map(|number| (format!("part-{number}"), "x".repeat(512 * 1024).into())).collect();
    let script = "cat /input/part-* | wc -c > /output/result.json";
    let document = cluster.call(json!({"command": ["bash", "-c", script], "in_files": files.clone()})).await;
    assert_eq!((document.error(), document.json()), ("", &json!(16 * 1024 * 1024)));
    let mut more = files;
    more.insert("one-more".into(), "x".into());
    let document = cluster.call(json!({"command": ["true"], "in_files": more})).await;
    assert!(document.error().contains("16777217 bytes in all, more than the host's limit of 16777216"), "{document:?}");
    cluster.end().await;
}
