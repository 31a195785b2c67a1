//! Trouble with a node, its registry and its processes.

use super::ALONE;
use hops_k8s_tests::cluster::service::no_pods;
use hops_k8s_tests::cluster::{Cluster, Route, ctl};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use rstest::rstest;
use serde_json::json;
use std::fs;
use std::process::Command;
use std::time::Instant;

const CALLS: usize = 50;

/// The node has 2 CPUs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_pod_that_is_preempted_is_an_error_at_once() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PodIp).await;
    let classes: Api<PriorityClass> = Api::all(cluster.client.clone());
    let class = json!({"metadata": {"name": cluster.namespace}, "value": 1000});
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    let important = async {
        cluster.running_pod().await;
        let pod = json!({"metadata": {"name": "important"}, "spec": {
            "priorityClassName": cluster.namespace, "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": "busybox:1.35", "command": ["sleep", "600"],
                "resources": {"requests": {"cpu": "1600m"}},
            }],
        }});
        let _: Pod = cluster.create(pod).await;
    };
    let call = cluster.call(json!({"command": ["sleep", "60"], "cpu": "500m"}));
    let (document, ()) = tokio::join!(call, important);
    assert!(document.error().starts_with("Evicted: ") && document.error().contains("preempt"), "{document:?}");
    cluster.api::<Pod>().delete("important", &DeleteParams::default()).await.unwrap();
    classes.delete(&cluster.namespace, &DeleteParams::default()).await.unwrap();
    cluster.end().await;
}

/// The node's kubelet is stopped, and an administrator marks the node as out of service.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_node_that_is_gone_is_an_error_at_once() {
    let Some(ctl) = ctl() else { return };
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PodIp).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let taint = async |taints| {
        for node in nodes.list(&ListParams::default()).await.unwrap() {
            let patch = Patch::Merge(json!({"spec": {"taints": taints}}));
            nodes.patch(&node.name_any(), &PatchParams::default(), &patch).await.unwrap();
        }
    };
    let gone = async {
        cluster.running_pod().await;
        ctl("stop", "kubelet");
        taint(json!([{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]))
            .await;
    };
    let (document, ()) = tokio::join!(cluster.call(json!({"command": ["sleep", "60"]})), gone);
    taint(json!(null)).await;
    ctl("start", "kubelet");
    assert!(document.error().starts_with("NodeLost: "), "{document:?}");
    cluster.end().await;
}

/// Stops the registry that the node pulls images from.
#[rstest]
#[case::refuses_connections("stop", "start", "2m", "ErrImagePull: ", "connection refused")]
#[case::does_not_answer(
    "freeze",
    "thaw",
    "4s",
    "StartTimeout: the container did not start within 4s: ",
    "its image was still being pulled"
)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_registry_that_does_not_answer_is_an_error_that_says_so(
    #[case] fault: &str,
    #[case] repair: &str,
    #[case] start_timeout: &str,
    #[case] error: &str,
    #[case] words: &str,
) {
    let Some(ctl) = ctl() else { return };
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PodIp).await;
    ctl(fault, "registry");
    let inputs = json!({"image": "bash:not-here-yet", "command": ["true"], "start_timeout": start_timeout});
    let document = cluster.call(inputs).await;
    ctl(repair, "registry");
    assert!(document.error().starts_with(error) && document.error().contains(words), "{document:?}");
    cluster.end().await;
}

/// The node is this machine.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_result_server_that_hangs_slows_no_other_call() {
    if ctl().is_none() {
        return;
    }
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PodIp).await;
    let bash = |script: &str| cluster.call(json!({"command": ["bash", "-c", script], "start_timeout": "5m"}));
    let others = async || {
        let start = Instant::now();
        let calls = (1..CALLS).map(|_| bash("echo [] > /output/result.json"));
        for document in futures::future::join_all(calls).await {
            assert_eq!(document.error(), "");
        }
        start.elapsed()
    };
    let healthy = tokio::join!(others(), bash("sleep 3; echo [] > /output/result.json")).0;
    no_pods(&cluster).await;
    let hung = async {
        let start = Instant::now();
        (bash("sleep 3; echo [] > /output/result.json").await, start.elapsed())
    };
    let beside = async {
        stop_result_server(&cluster.running_pod().await);
        others().await
    };
    let ((document, took), beside) = tokio::join!(hung, beside);
    let others = CALLS - 1;
    println!(
        "{others} calls took {healthy:?} beside a healthy result server, {beside:?} beside one that hung for {took:?}"
    );
    assert!(document.error().starts_with("ResultUnavailable: result.json could not be read: "), "{document:?}");
    assert!(beside < healthy.mul_f64(1.5), "{beside:?}, {healthy:?} without it");
    cluster.end().await;
}

/// Stops the processes of a pod's result server. Their sockets stay open.
fn stop_result_server(pod: &Pod) {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()).unwrap();
    let server = statuses.iter().find(|status| status.name != "main").unwrap();
    let id = server.container_id.as_ref().unwrap().rsplit('/').next().unwrap();
    let is_of_server = |process: &fs::DirEntry| {
        fs::read_to_string(process.path().join("cgroup")).is_ok_and(|cgroup| cgroup.contains(id))
    };
    let processes: Vec<_> = fs::read_dir("/proc").unwrap().map(Result::unwrap).filter(is_of_server).collect();
    assert!(!processes.is_empty(), "the result server of {:?} is on another machine", pod.meta().name);
    for process in processes {
        assert!(Command::new("kill").arg("-STOP").arg(process.file_name()).status().unwrap().success());
    }
}
