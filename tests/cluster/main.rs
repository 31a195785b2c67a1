//! Calls on a real cluster: the one in `KUBECONFIG`.

mod harness;

use harness::{Cluster, Route, until};
use hops_k8s_tests::{Document, EXAMPLE, call, hops};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use rstest::rstest;
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};

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
    // 7-digit numbers, a line each: any gap, swap or cut shows.
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

#[rstest]
#[case::plain_text("echo -n hello > /output/result.json", "", "hello", Value::Null)]
#[case::json_array("echo '[1, 2.50]' > /output/result.json", "", "", json!([1, 2.50]))]
#[case::no_file("true", "", "", Value::Null)]
#[case::exit_code("echo boom >&2; exit 3", "Error: container exited with code 3\nboom", "", Value::Null)]
#[case::exit_code_and_file(
    "echo partial > /output/result.json; exit 3",
    "Error: container exited with code 3",
    "partial\n",
    Value::Null
)]
#[case::killed("(kill -9 $BASHPID)", "Error: container exited with code 137 (SIGKILL)", "", Value::Null)]
#[case::not_utf_8(
    r"printf 'ab\xffc' > /output/result.json",
    "InvalidResult: the result file is not UTF-8: 4 bytes, the first bad one at offset 2",
    "",
    Value::Null
)]
#[case::private_file("echo -n mine > /output/result.json; chmod 600 /output/result.json", "", "mine", Value::Null)]
#[case::file_of_another_user(
    "echo -n theirs > /output/result.json; chmod 600 /output/result.json; chown 4711 /output/result.json",
    "",
    "theirs",
    Value::Null
)]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn an_ending_gives_its_result(
    #[case] script: &str,
    #[case] error: &str,
    #[case] body: &str,
    #[case] json: Value,
) {
    let cluster = Cluster::start(Route::PodIp).await;
    let document = cluster.bash(script).await;
    assert_eq!((document.error(), document.body(), document.json()), (error, body, &json));
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_container_that_takes_too_much_memory_is_an_oom_kill() {
    let cluster = Cluster::start(Route::PodIp).await;
    let document =
        cluster.bash("echo -n early > /output/result.json; x=$(head -c 100000000 /dev/zero | tr '\\0' x)").await;
    assert!(document.error().starts_with("OOMKilled: the container ran into its memory limit of 32Mi"), "{document:?}");
    assert_eq!(document.body(), "early");
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn input_files_have_the_names_and_contents_that_were_given() {
    let cluster = Cluster::start(Route::PodIp).await;
    let files = json!({
        "plain.txt": "plain", "a/b/c.txt": "nested", "with space.txt": "space", ".hidden": "dot", "a/ü–雪.txt": "non-ASCII",
        "quote\"'$(x)`.txt": "quotes", "empty": "", "new\nline": "odd", "nul": "a\u{0}b", "-rf": "dash",
    });
    // Name, tab, content in hexadecimal digits.
    let script = r#"cd /input; find . -follow -type f -not -path './..*' -print0 | while IFS= read -r -d '' name; do
        printf '%s\t%s\0' "${name#./}" "$(od -An -v -tx1 "$name" | tr -d ' \n')"; done > /output/result.txt"#;
    let inputs = json!({"command": ["bash", "-c", script], "in_files": files, "out_path": "result.txt"});
    let document = cluster.call(inputs).await;
    assert_eq!(document.error(), "");
    let mut found: Vec<(String, String)> = vec![];
    for line in document.body().split_terminator('\0') {
        let (name, content) = line.split_once('\t').unwrap();
        found.push((name.into(), content.into()));
    }
    found.sort();
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut expected: Vec<(String, String)> = files
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, content)| (name.clone(), hex(content.as_str().unwrap())))
        .collect();
    expected.sort();
    assert_eq!(found, expected);
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn three_mebibytes_of_input_files_arrive() {
    let cluster = Cluster::start(Route::PodIp).await;
    let files: serde_json::Map<String, Value> =
        (0..6).map(|number| (format!("part-{number}"), number.to_string().repeat(MIB / 2).into())).collect();
    let script = "cat /input/part-* | md5sum > /output/result.txt; cat /input/part-* | wc -c >> /output/result.txt";
    let inputs = json!({"command": ["bash", "-c", script], "in_files": files, "out_path": "result.txt"});
    let document = cluster.call(inputs).await;
    assert_eq!(document.error(), "");
    let all: String = (0..6).map(|number| number.to_string().repeat(MIB / 2)).collect();
    let expected = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut expected.stdin.as_ref().unwrap(), all.as_bytes()).unwrap();
    let expected = expected.wait_with_output().unwrap().stdout;
    assert_eq!(document.body(), format!("{}{}\n", String::from_utf8(expected).unwrap(), 3 * MIB));
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn one_input_file_over_a_mebibyte_is_refused_with_its_name() {
    let cluster = Cluster::start(Route::PodIp).await;
    let document = cluster.call(json!({"in_files": {"big": "x".repeat(MIB + 1)}})).await;
    assert!(document.error().starts_with("InvalidInputs: in_files[\"big\"] is 1048577 bytes, but"), "{document:?}");
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn args_go_to_the_images_own_command_and_env_to_the_container() {
    let cluster = Cluster::start(Route::PodIp).await;
    let script = r#"echo "$GREETING $HIPHOPS_INPUT_DIR $HIPHOPS_OUTPUT_DIR $HIPHOPS_RESULT_PATH" > "$HIPHOPS_OUTPUT_DIR/$HIPHOPS_RESULT_PATH""#;
    let document = cluster
        .call(json!({
            "args": ["-c", script], "env": {"GREETING": "Hello, $USER & co"}, "in_dir": "/data/in", "out_dir": "/data/out",
            "out_path": "answer.txt",
        }))
        .await;
    assert_eq!((document.error(), document.body()), ("", "Hello, $USER & co /data/in /data/out answer.txt\n"));
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn skip_cleanup_leaves_the_pod_with_what_was_asked_for() {
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
    // The input files belong to the pod, so they go with it.
    cluster.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    cluster.end().await;
}

#[rstest]
#[case::no_such_command(json!({"command": ["/no/such/program"]}), "StartError: ")]
#[case::impossible_image(json!({"image": "Not An Image"}), "InvalidInputs: image: ")]
#[case::invalid_image(json!({"image": "UPPER:case"}), "InvalidImageName: ")]
#[case::unknown_image(json!({"image": "nobody/has:this"}), "ErrImagePull: ")]
#[case::too_much_cpu(json!({"cpu": "4000", "start_timeout": "3s"}), "StartTimeout: the container did not start within 3s: 0/1 nodes are available: 1 Insufficient cpu")]
#[case::timeout(json!({"command": ["bash", "-c", "echo tick; echo so far > /output/result.json; sleep 60"], "timeout": "2s"}), "Timeout: the container ran longer than 2s and was ended; raise \"timeout\" if it needs longer\ntick")]
#[case::no_such_namespace(json!({"namespace": "there-is-none"}), "InvalidInputs: namespace \"there-is-none\" does not exist")]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_container_that_cannot_go_on_is_an_error_with_the_reason(#[case] more: Value, #[case] error: &str) {
    let cluster = Cluster::start(Route::PodIp).await;
    let document = cluster.call(more).await;
    assert!(document.error().starts_with(error), "{}", document.error());
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_pod_that_somebody_deletes_is_an_error_at_once() {
    let cluster = Cluster::start(Route::PodIp).await;
    let inputs = cluster.inputs(json!({"command": ["bash", "-c", "sleep 600"]}));
    let running = tokio::spawn({
        let pods = cluster.pods.clone();
        async move { call(pods, &inputs).await.unwrap() }
    });
    let pod = running_pod(&cluster).await;
    cluster.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    let document = Document::parse(&running.await.unwrap());
    assert_eq!(document.error(), "PodDeleted: somebody deleted the pod before it was done");
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

async fn running_pod(cluster: &Cluster) -> Pod {
    until("a pod runs", || async {
        let pod = cluster.the_pod().await;
        match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
            Some("Running") => Ok(pod),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

mod command {
    use super::*;

    /// A file that the command reads, in a folder that is removed with the test.
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
        // As it stands in the document, but for the namespace: tests keep to their own.
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
        running_pod(&cluster).await;
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

    /// The command as a pod of the cluster, with the rights that the README asks for. The node has to be this machine:
    /// the pod uses its programs.
    #[rstest]
    #[tokio::test]
    #[ignore = "needs a cluster"]
    async fn in_a_cluster_it_uses_its_service_account_and_pod_addresses(#[values(false, true)] port_forward: bool) {
        let cluster = Cluster::start(Route::PortForward).await;
        let _: ServiceAccount = cluster.create(json!({"metadata": {"name": "hops"}})).await;
        let mut rules = vec![
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "watch", "delete"]}),
            json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}),
        ];
        if port_forward {
            rules.push(json!({"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]}));
        }
        let _: Role = cluster.create(json!({"metadata": {"name": "hops"}, "rules": rules})).await;
        let _: RoleBinding = cluster
            .create(json!({
                "metadata": {"name": "hops"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "hops"},
                "subjects": [{"kind": "ServiceAccount", "name": "hops", "namespace": cluster.namespace}],
            }))
            .await;
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
                    "serviceAccountName": "hops",
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
        let phase = until("hops has ended", || async {
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
