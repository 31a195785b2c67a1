//! Calls on a real cluster: the one in `KUBECONFIG`.

mod admission;
mod check;
mod failures;
mod worker;

use hops_k8s_tests::cases::{self, Backend};
use hops_k8s_tests::cluster::{Cluster, MINUTE, Route, rules, service};
use hops_k8s_tests::{Document, EXAMPLE, call, eventually, hops};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use rstest::rstest;
use serde_json::json;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

const MIB: usize = 1024 * 1024;

#[rstest]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_documents_hello_gives_its_json(#[values(Route::PodIp, Route::PortForward)] route: Route) {
    let cluster = Cluster::start(route).await;
    let document = cluster.bash(r#"echo '{"greeting": "Hello world!"}' > /output/result.json"#).await;
    assert_eq!((document.error(), document.json()), ("", &json!({"greeting": "Hello world!"})));
    cluster.end().await;
}

#[rstest]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn five_mebibytes_of_text_arrive_byte_for_byte(#[values(Route::PodIp, Route::PortForward)] route: Route) {
    let cluster = Cluster::start(route).await;
    // Lines of 7-digit numbers, so that every gap, swap or cut shows.
    let document = cluster.bash("seq -w 1000000 1655359 > /output/result.json").await;
    assert_eq!(document.error(), "");
    let expected: String = (1_000_000..=1_655_359).map(|number| format!("{number}\n")).collect();
    assert_eq!(expected.len(), 5 * MIB);
    assert!(document.body() == expected, "{} bytes that are not the file's", document.body().len());
    cluster.end().await;
}

#[rstest]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_result_over_the_limit_is_an_error_with_both_sizes(#[values(Route::PodIp, Route::PortForward)] route: Route) {
    let cluster = Cluster::start(route).await;
    let document = cluster.bash("head -c 8388609 /dev/zero > /output/result.json").await;
    assert_eq!(
        document.error(),
        "ResultTooLarge: result.json is 8388609 bytes, more than the host's limit of 8388608 bytes"
    );
    assert_eq!(document.body(), "");
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn one_input_file_over_a_mebibyte_is_refused_with_its_name() {
    let cluster = Cluster::start(Route::PodIp).await;
    let document = cluster.call(json!({"in_files": {"big": "x".repeat(MIB + 1)}})).await;
    assert!(document.error().starts_with("InvalidInputs: input-files: \"big\" has 1048577 bytes, but"), "{document:?}");
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn skip_cleanup_leaves_the_pod_that_the_inputs_describe() {
    let cluster = Cluster::start(Route::PodIp).await;
    let document = cluster
        .call(json!({
            "command": ["bash", "-c", "true"], "cpu": "20m", "memory": "40Mi", "skip_cleanup": true, "timeout": "1m",
            "in_files": {"a": "b"},
        }))
        .await;
    assert_eq!(document.error(), "");
    let pod = cluster.the_pod().await;
    assert!(pod.metadata.deletion_timestamp.is_none());
    assert_eq!(pod.labels()["hiphops-io/for"], "workflow-step");
    assert_eq!(pod.labels()["hiphops-io/skip_cleanup"], "true");
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.active_deadline_seconds, Some(60 + 120 + 300));
    assert_eq!(spec.automount_service_account_token, Some(false));
    let [main, sidecar] = &spec.containers[..] else { panic!("{:?}", spec.containers) };
    assert_eq!((&*main.name, &*sidecar.name), ("main", "hiphops-sidecar"));
    let resources = main.resources.as_ref().unwrap();
    for list in [&resources.requests, &resources.limits] {
        let list = list.as_ref().unwrap();
        assert_eq!((&*list["cpu"].0, &*list["memory"].0), ("20m", "40Mi"));
    }
    assert_eq!(sidecar.security_context.as_ref().unwrap().read_only_root_filesystem, Some(true));
    // The input files belong to the pod, so they are deleted with it.
    cluster.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn every_case_means_what_it_means_elsewhere() {
    let cluster = Cluster::start(Route::PodIp).await;
    cases::check(Backend::Kube, cluster.pods.clone(), &cluster.inputs(json!({"cpu": "200m"}))).await;
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_namespace_that_does_not_exist_is_an_error() {
    let cluster = Cluster::start(Route::PodIp).await;
    // As an administrator: without the right to see namespaces, the error is about the right to create pods.
    let inputs = cluster.inputs(json!({"namespace": "there-is-none"}));
    let document = Document::parse(&call(Arc::new(service::kube().await), &inputs).await.unwrap());
    assert!(document.error().starts_with("InvalidInputs: namespace \"there-is-none\" does not exist"), "{document:?}");
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn dropping_a_call_deletes_its_pod_wherever_it_was() {
    let cluster = Cluster::start(Route::PodIp).await;
    for millis in [0, 2, 5, 10, 20, 50, 100, 300, 700] {
        let inputs = cluster.inputs(json!({"command": ["bash", "-c", "sleep 600"], "in_files": {"a": "b"}}));
        let pods = cluster.pods.clone();
        let cancelled = tokio::time::timeout(std::time::Duration::from_millis(millis), call(pods, &inputs)).await;
        assert!(cancelled.is_err(), "the container runs for ten minutes");
    }
    cluster.end().await;
}

mod command {
    use super::*;

    /// A file for the command, in a folder that is removed with the test.
    struct File(tempfile::TempDir, &'static str);

    impl File {
        fn new(name: &'static str, content: impl AsRef<[u8]>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), content).unwrap();
            File(dir, name)
        }

        fn path(&self) -> std::path::PathBuf {
            self.0.path().join(self.1)
        }
    }

    #[rstest]
    #[tokio::test]
    #[ignore = "needs a cluster"]
    async fn the_documents_example_prints_the_documents_result(#[values(false, true)] port_forward: bool) {
        let cluster = Cluster::start(Route::PortForward).await;
        // Unchanged but for the namespace, since each test has its own.
        let example = EXAMPLE.replace(r#"namespace = """#, &format!("namespace = {:?}", cluster.namespace));
        assert_ne!(example, EXAMPLE);
        let file = File::new("example.hops", example);
        let output =
            Command::new(hops()).arg("run").args(port_forward.then_some("--port-forward")).arg(file.path()).output();
        let output = output.unwrap();
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
        let document = Document::parse(std::str::from_utf8(&output.stdout).unwrap());
        assert_eq!(document.json(), &json!({"greeting": "Hello world!"}));
        cluster.end().await;
    }

    #[tokio::test]
    #[ignore = "needs a cluster"]
    async fn a_failed_call_prints_its_result_and_ends_with_1() {
        let cluster = Cluster::start(Route::PortForward).await;
        let inputs =
            cluster.inputs(json!({"command": ["bash", "-c", "echo out; echo -n text > /output/result.json; exit 7"]}));
        let file = File::new("inputs.json", inputs.to_string());
        let output = Command::new(hops()).args(["run", "--logs", "-o", "body"]).arg(file.path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b"text"[..]), "{stderr}");
        assert_eq!(stderr, "out\nhops: Error: container exited with code 7\nout\n");
        cluster.end().await;
    }

    #[rstest]
    #[tokio::test]
    #[ignore = "needs a cluster"]
    async fn an_interrupt_deletes_the_pod_and_ends_with_130(#[values("INT", "TERM")] signal: &str) {
        let cluster = Cluster::start(Route::PortForward).await;
        let inputs = cluster.inputs(json!({"command": ["bash", "-c", "sleep 600"], "in_files": {"a": "b"}}));
        let file = File::new("inputs.json", inputs.to_string());
        let child =
            Command::new(hops()).arg("run").arg(file.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap();
        cluster.running_pod().await;
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        assert_eq!(&*output.stdout, b"");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "hops: interrupted; the pod is deleted\n");
        let pods = cluster.api::<Pod>().list(&ListParams::default()).await.unwrap();
        assert!(pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()), "deleted before the command ends");
        cluster.end().await;
    }

    /// Runs the command in a pod of the cluster, with the rights that it needs there. The node has to be this machine,
    /// since the pod mounts the command from it.
    #[rstest]
    #[tokio::test]
    #[ignore = "needs a cluster"]
    async fn in_a_cluster_it_uses_its_service_account_and_pod_addresses(#[values(false, true)] port_forward: bool) {
        let cluster = Cluster::start(Route::PortForward).await;
        let needed = |rule: &PolicyRule| port_forward || rule.resources.as_ref().unwrap() != &["pods/portforward"];
        let rules: Vec<PolicyRule> = rules().into_iter().filter(needed).collect();
        cluster.account("inside", json!(rules)).await;
        let inputs = cluster.inputs(json!({
            "command": ["bash", "-c", "cp /input/a /output/result.json"], "in_files": {"a": "[\"from inside\"]"},
        }));
        let _: ConfigMap =
            cluster.create(json!({"metadata": {"name": "calls"}, "data": {"inputs.json": inputs.to_string()}})).await;
        let folder = hops().parent().unwrap();
        let mut command = vec!["/hops/hops", "run", "/calls/inputs.json"];
        command.extend(port_forward.then_some("--port-forward"));
        let host = |name: &str, path: &str| json!({"name": name, "hostPath": {"path": path}});
        let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
        let _: Pod = cluster
            .create(json!({
                "metadata": {"name": "hops"},
                "spec": {
                    "serviceAccountName": "inside",
                    "restartPolicy": "Never",
                    "containers": [{
                        "name": "hops", "image": "busybox:1.35", "command": command,
                        "volumeMounts": [
                            mount("hops", "/hops"), mount("calls", "/calls"), mount("lib", "/lib/x86_64-linux-gnu"),
                            mount("loader", "/lib64"),
                        ],
                    }],
                    "volumes": [
                        host("hops", folder.to_str().unwrap()), host("lib", "/usr/lib/x86_64-linux-gnu"),
                        host("loader", "/usr/lib64"), {"name": "calls", "configMap": {"name": "calls"}},
                    ],
                },
            }))
            .await;
        let pods = cluster.api::<Pod>();
        let phase = eventually("hops has ended", MINUTE, async || {
            let phase = pods.get("hops").await.unwrap().status.unwrap().phase.unwrap();
            if matches!(&*phase, "Succeeded" | "Failed") { Ok(phase) } else { Err(phase) }
        })
        .await;
        let log = pods.logs("hops", &Default::default()).await.unwrap();
        assert_eq!(phase, "Succeeded", "{log}");
        assert_eq!(Document::parse(&log).json(), &json!(["from inside"]));
        pods.delete("hops", &DeleteParams::default().grace_period(0)).await.unwrap();
        cluster.api::<ConfigMap>().delete("calls", &DeleteParams::default()).await.unwrap();
        cluster.end().await;
    }
}
