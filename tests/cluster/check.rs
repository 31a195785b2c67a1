//! `hops check` as somebody with all rights, with just enough, and with one too few.

use hops_k8s_tests::cluster::{Cluster, Route, rules};
use hops_k8s_tests::{Document, hops};
use k8s_openapi::api::rbac::v1::PolicyRule;
use rstest::rstest;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use tempfile::TempDir;

const ACCOUNT: &str = "partial";

/// A service account that may do this, and the kubeconfig with its token.
async fn account(cluster: &Cluster, rules: Value) -> TempDir {
    cluster.account(ACCOUNT, rules).await;
    cluster.kubeconfig_of(ACCOUNT).await
}

fn all_rules_but(missing: Option<(&str, &str)>) -> Value {
    let rules = rules();
    let rules = rules.iter().flat_map(|PolicyRule { resources, verbs, .. }| {
        let resource = &resources.as_ref().unwrap()[0];
        verbs.iter().map(move |verb| (&**resource, &**verb))
    });
    let rules = rules.filter(|rule| Some(*rule) != missing);
    rules.map(|(resource, verb)| json!({"apiGroups": [""], "resources": [resource], "verbs": [verb]})).collect()
}

/// Exit status, and the lines but for those about this machine and about queues.
fn check(namespace: &str, kubeconfig: Option<&TempDir>) -> (Option<i32>, Vec<Value>) {
    let mut command = Command::new(hops());
    command.args(["check", "--json", "--namespace", namespace]);
    if let Some(dir) = kubeconfig {
        command.arg("--kubeconfig").arg(dir.path().join("config"));
    }
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let mut lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let others = ["local engine", "local process", "key file", "queue", "policy"];
    lines.retain(|line| !others.contains(&line["check"].as_str().unwrap()));
    (output.status.code(), lines)
}

fn with_state<'a>(lines: &'a [Value], state: &str) -> Vec<&'a str> {
    lines.iter().filter(|line| line["state"] == state).map(|line| line["check"].as_str().unwrap()).collect()
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn an_administrator_misses_nothing_and_leaves_nothing() {
    let cluster = Cluster::start(Route::PortForward).await;
    let (status, lines) = check(&cluster.namespace, None);
    assert_eq!((status, with_state(&lines, "ok").len()), (Some(0), lines.len()), "{lines:#?}");
    assert!(lines.iter().any(|line| line["check"] == "pod"));
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_rules_of_one_namespace_are_enough() {
    let cluster = Cluster::start(Route::PortForward).await;
    let kubeconfig = account(&cluster, all_rules_but(None)).await;
    let (status, lines) = check(&cluster.namespace, Some(&kubeconfig));
    assert_eq!((status, with_state(&lines, "note")), (Some(0), vec!["one watch for all"]), "{lines:#?}");
    cluster.end().await;
}

#[rstest]
#[case("pods", "create")]
#[case("pods", "get")]
#[case("pods", "list")]
#[case("pods", "watch")]
#[case("pods", "delete")]
#[case("configmaps", "create")]
#[case("pods/log", "get")]
#[case("pods/portforward", "get")]
#[case("pods/portforward", "create")]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_missing_rule_is_named_and_the_printed_role_grants_it(#[case] resource: &str, #[case] verb: &str) {
    let cluster = Cluster::start(Route::PortForward).await;
    let kubeconfig = account(&cluster, all_rules_but(Some((resource, verb)))).await;
    let (status, lines) = check(&cluster.namespace, Some(&kubeconfig));
    let name = format!("{resource} {verb}");
    assert_eq!((status, with_state(&lines, "missing")), (Some(1), vec![&*name]), "{lines:#?}");

    let line = lines.iter().find(|line| line["check"] == *name).unwrap();
    let (role, binding) = line["fix"].as_str().unwrap().split_once("---\n").unwrap();
    let (role, binding): (Value, Value) =
        (serde_saphyr::from_str(role).unwrap(), serde_saphyr::from_str(binding).unwrap());
    assert_eq!((&role["kind"], &binding["kind"]), (&json!("Role"), &json!("RoleBinding")));
    assert_eq!(role["rules"], json!([{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]));
    cluster.grant(ACCOUNT, role, binding).await;
    let (status, lines) = check(&cluster.namespace, Some(&kubeconfig));
    assert_eq!(status, Some(0), "{lines:#?}");
    cluster.end().await;
}

/// The rules without which a call cannot do its work; the rest is for its log, for adoption and for what comes after it.
#[rstest]
#[case("pods", "create")]
#[case("pods", "list")]
#[case("pods", "watch")]
#[case("configmaps", "create")]
#[case("pods/portforward", "get")]
#[case("pods/portforward", "create")]
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_call_names_the_rule_that_is_missing(#[case] resource: &str, #[case] verb: &str) {
    let cluster = Cluster::start(Route::PortForward).await;
    let kubeconfig = account(&cluster, all_rules_but(Some((resource, verb)))).await;
    let file = kubeconfig.path().join("inputs.json");
    let script = "cp /input/a /output/result.json";
    let inputs = cluster.inputs(json!({"command": ["bash", "-c", script], "in_files": {"a": "b"}}));
    fs::write(&file, inputs.to_string()).unwrap();
    let mut command = Command::new(hops());
    command.arg("run").arg(file).arg("--kubeconfig").arg(kubeconfig.path().join("config"));
    let output = command.output().unwrap();
    let document = Document::parse(&String::from_utf8(output.stdout).unwrap());
    let error = document.error();
    assert!(error.starts_with("Forbidden: "), "{error}");
    let rule = format!("{{apiGroups: [\"\"], resources: [{resource:?}], verbs: [{verb:?}]}}");
    assert!(error.contains(&rule) && error.contains(&cluster.namespace), "{error}");
    assert_eq!(output.status.code(), Some(1));
    cluster.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_namespace_that_is_not_there_is_said_to_be_missing() {
    let (status, lines) = check("there-is-none", None);
    assert_eq!((status, with_state(&lines, "missing")), (Some(1), vec!["pod"]), "{lines:#?}");
    assert!(lines.last().unwrap()["detail"].as_str().unwrap().contains("namespace \"there-is-none\" does not exist"));
}
