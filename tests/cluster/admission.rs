//! Namespaces that refuse some pods, or change them.

use hops_k8s_tests::cluster::{Cluster, MINUTE, Route};
use hops_k8s_tests::eventually;
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
    let refused = async || {
        let document = cluster.call(json!({"command": ["true"], "cpu": "300m"})).await;
        if document.error().is_empty() { Err("not in force yet") } else { Ok(document) }
    };
    let document = eventually("the limit is in force", MINUTE, refused).await;
    assert!(document.error().starts_with("Forbidden: "), "{document:?}");
    assert!(document.error().contains("maximum cpu usage per Container is 200m, but limit is 300m"), "{document:?}");
    assert_eq!(cluster.call(json!({"command": ["true"], "cpu": "200m"})).await.error(), "");
    cluster.end().await;
}

/// A change that an admission controller makes to the pods of a namespace.
struct Mutation {
    policies: Api<DynamicObject>,
    bindings: Api<DynamicObject>,
    name: String,
}

impl Mutation {
    /// Applies these JSON patches, in CEL, to each pod that is created. They take effect a moment later.
    async fn start(cluster: &Cluster, patches: &str) -> Self {
        let name = cluster.namespace.clone();
        label(cluster, json!({"mutated": name})).await;
        let objects = |kind: &str| -> Api<DynamicObject> {
            let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
            Api::all_with(cluster.client.clone(), &ApiResource::from_gvk(&kind))
        };
        let (policies, bindings) = (objects("MutatingAdmissionPolicy"), objects("MutatingAdmissionPolicyBinding"));
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "reinvocationPolicy": "Never",
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
                ]},
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patches}}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "matchResources": {"namespaceSelector": {"matchLabels": {"mutated": name}}}},
        });
        let params = PostParams::default();
        policies.create(&params, &serde_json::from_value(policy).unwrap()).await.unwrap();
        bindings.create(&params, &serde_json::from_value(binding).unwrap()).await.unwrap();
        Mutation { policies, bindings, name }
    }

    async fn end(self) {
        self.bindings.delete(&self.name, &DeleteParams::default()).await.unwrap();
        self.policies.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }
}

/// A service mesh adds labels and a container that never ends.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_container_that_others_add_to_the_pod_changes_nothing() {
    let cluster = Cluster::start(Route::PodIp).await;
    let patches = r#"[
        JSONPatch{op: "add", path: "/metadata/labels/mesh", value: "yes"},
        JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{
            name: "mesh", image: "busybox:1.35", command: ["sleep", "600"]}}]"#;
    let mutation = Mutation::start(&cluster, patches).await;
    let mutated = async || {
        let call = cluster.call(json!({"command": ["bash", "-c", "sleep 2; echo -n ok > /output/result.json"]}));
        let (document, pod) = tokio::join!(call, cluster.the_pod());
        assert_eq!((document.error(), document.body()), ("", "ok"));
        if pod.spec.unwrap().containers.len() == 3 { Ok(()) } else { Err("not in force yet") }
    };
    eventually("a container is added", MINUTE, mutated).await;
    mutation.end().await;
    cluster.end().await;
}

/// Adds a variable from a Secret or a ConfigMap that does not exist.
#[rstest]
#[case::secret("secretKeyRef", r#"secret "not-there" not found"#)]
#[case::config_map("configMapKeyRef", r#"configmap "not-there" not found"#)]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_secret_or_config_map_that_does_not_exist_is_named(#[case] reference: &str, #[case] words: &str) {
    let cluster = Cluster::start(Route::PodIp).await;
    let kind = format!("Object.spec.containers.env.valueFrom.{reference}");
    let patches = format!(
        r#"[JSONPatch{{op: "add", path: "/spec/containers/0/env/-", value: Object.spec.containers.env{{
            name: "TOKEN", valueFrom: Object.spec.containers.env.valueFrom{{
                {reference}: {kind}{{name: "not-there", key: "token"}}}}}}}}]"#
    );
    let mutation = Mutation::start(&cluster, &patches).await;
    let refused = async || {
        let document = cluster.call(json!({"command": ["true"]})).await;
        if document.error().is_empty() { Err("not in force yet") } else { Ok(document) }
    };
    let document = eventually("the variable is added", MINUTE, refused).await;
    assert_eq!(document.error(), format!("CreateContainerConfigError: {words}"));
    mutation.end().await;
    cluster.end().await;
}
