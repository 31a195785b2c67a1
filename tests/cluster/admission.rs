//! Namespaces that do not take every pod, or change it.

use super::harness::{Cluster, Route, until};
use k8s_openapi::api::core::v1::{LimitRange, Namespace};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use rstest::rstest;
use serde_json::{Value, json};

/// Labels the cluster's namespace.
async fn label(cluster: &Cluster, labels: Value) {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    namespaces.patch(&cluster.namespace, &PatchParams::default(), &patch).await.unwrap();
}

#[rstest]
#[case::restricted("restricted", "65532")]
#[case::baseline("baseline", "0")]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_namespace_may_enforce_a_pod_security_standard(#[case] standard: &str, #[case] uid: &str) {
    let cluster = Cluster::start(Route::PortForward).await;
    label(&cluster, json!({"pod-security.kubernetes.io/enforce": standard})).await;
    let script = "cat /input/a > /output/result.json; id -u >> /output/result.json; chmod 600 /output/result.json";
    let calls =
        (0..3).map(|_| cluster.call(json!({"command": ["bash", "-c", script], "in_files": {"a": "from a file\n"}})));
    for document in futures::future::join_all(calls).await {
        assert_eq!((document.error(), document.body()), ("", &*format!("from a file\n{uid}\n")));
    }
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_limit_of_the_namespace_is_named() {
    let cluster = Cluster::start(Route::PodIp).await;
    let _: LimitRange = cluster
        .create(
            json!({"metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "200m"}}]}}),
        )
        .await;
    let refused = || async {
        let document = cluster.call(json!({"command": ["true"], "cpu": "300m"})).await;
        if document.error().is_empty() { Err("not in force yet") } else { Ok(document) }
    };
    let document = until("the limit is in force", refused).await;
    assert!(document.error().starts_with("Forbidden: "), "{document:?}");
    assert!(document.error().contains("maximum cpu usage per Container is 200m, but limit is 300m"), "{document:?}");
    assert_eq!(cluster.call(json!({"command": ["true"], "cpu": "200m"})).await.error(), "");
    cluster.end().await;
}

/// What a service mesh does: a container more, which never ends, and labels.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn what_others_add_to_the_pod_changes_nothing() {
    let cluster = Cluster::start(Route::PodIp).await;
    let name = &cluster.namespace;
    label(&cluster, json!({"mesh": name})).await;
    let objects = |kind: &str| -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        Api::all_with(cluster.client.clone(), &ApiResource::from_gvk(&kind))
    };
    let (policies, bindings) = (objects("MutatingAdmissionPolicy"), objects("MutatingAdmissionPolicyBinding"));
    let expression = r#"[
        JSONPatch{op: "add", path: "/metadata/labels/mesh", value: "yes"},
        JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{
            name: "mesh", image: "busybox:1.35", command: ["sleep", "600"]}}]"#;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "reinvocationPolicy": "Never",
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
            ]},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "matchResources": {"namespaceSelector": {"matchLabels": {"mesh": name}}}},
    });
    let params = PostParams::default();
    policies.create(&params, &serde_json::from_value(policy).unwrap()).await.unwrap();
    bindings.create(&params, &serde_json::from_value(binding).unwrap()).await.unwrap();

    let mutated = || async {
        let call = cluster.call(json!({"command": ["bash", "-c", "sleep 2; echo -n ok > /output/result.json"]}));
        let (document, pod) = tokio::join!(call, cluster.the_pod());
        assert_eq!((document.error(), document.body()), ("", "ok"));
        if pod.spec.unwrap().containers.len() == 3 { Ok(()) } else { Err("not in force yet") }
    };
    until("a container is added", mutated).await;
    bindings.delete(name, &DeleteParams::default()).await.unwrap();
    policies.delete(name, &DeleteParams::default()).await.unwrap();
    cluster.end().await;
}
