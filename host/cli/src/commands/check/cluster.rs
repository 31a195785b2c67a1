//! What calls need of the cluster: an answer, rules, and a pod that can be read from.

use super::Arguments;
use super::line::{Line, State};
use crate::backend::with_remedy;
use crate::global::Global;
use futures::future::try_join_all;
use hops_k8s::pods::kube::{KubePods, PodTrouble, Source, Step};
use hops_k8s::pods::{Cause, Error, Rule};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use std::time::Duration;

/// How long requests are tried. It is enough for a cluster in good order.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a program that fetches credentials may take: somebody may have to log in.
const CREDENTIALS: Duration = Duration::from_secs(30);

/// Finds the cluster. The error is the line about the kubeconfig.
pub(super) async fn connect(global: &Global) -> Result<KubePods, Line> {
    let mut options = global.kube_options();
    options.patience = PATIENCE;
    // In a task of its own: a program that fetches credentials blocks the thread.
    let connecting = tokio::spawn(KubePods::connect(options));
    let missing = |sentence: &str| Line::of_sentence("kubeconfig", State::Missing, sentence);
    match tokio::time::timeout(CREDENTIALS, connecting).await {
        Ok(Ok(Ok(pods))) => Ok(pods),
        Ok(Ok(Err(error))) => Err(missing(&with_remedy(&error))),
        Ok(Err(error)) => Err(missing(&error.to_string())),
        Err(_) => {
            let seconds = CREDENTIALS.as_secs();
            let detail = format!("the program that it names for credentials does not end within {seconds} s");
            Err(missing(&detail).fix("run kubectl get pods and see what it waits for"))
        }
    }
}

/// What was found, and whether the cluster answers.
pub(super) async fn check(pods: &KubePods, arguments: &Arguments) -> (Vec<Line>, bool) {
    let mut lines = vec![Line::new("kubeconfig", State::Ok, source(pods.source(), pods.address().unwrap_or_default()))];
    match pods.version().await {
        Ok(version) => lines.push(Line::new("cluster", State::Ok, format!("Kubernetes {version}"))),
        Err(error) => {
            lines.push(Line::of_sentence("cluster", State::Missing, &error.to_string()));
            lines.extend(["rules", "pod"].map(|check| Line::unchecked(check, "the cluster does not answer")));
            return (lines, false);
        }
    }
    let namespace = &*arguments.namespace;
    let is_allowed = match tokio::try_join!(rules(pods, namespace), watch(pods)) {
        Ok((needed, watch)) => {
            let is_allowed = needed.iter().all(|line| line.state == State::Ok);
            lines.extend(needed);
            lines.push(watch);
            is_allowed
        }
        Err(error) => {
            let detail = format!("the cluster does not say what is allowed: {error}");
            let fix = "find out with kubectl auth whoami who this user is to the cluster";
            lines.push(Line::new("rules", State::Missing, detail).fix(fix));
            false
        }
    };
    lines.push(match (arguments.no_pod, is_allowed) {
        (true, _) => Line::unchecked("pod", "--no-pod"),
        (false, false) => Line::unchecked("pod", "rules are missing"),
        (false, true) => pod(pods, namespace).await,
    });
    (lines, true)
}

fn source(source: &Source, address: &str) -> String {
    let mut text = source.origin.clone();
    for (what, name) in [("context", &source.context), ("user", &source.user)] {
        if let Some(name) = name {
            text += &format!(", {what} {name}");
        }
    }
    format!("{text}, {address}")
}

/// The rules that a Role has to give.
async fn rules(pods: &KubePods, namespace: &str) -> Result<Vec<Line>, Error> {
    let needs = pods.needs(namespace);
    let allowed = try_join_all(needs.iter().map(|rule| pods.allows(rule))).await?;
    let missing: Vec<Rule> =
        needs.iter().zip(&allowed).filter(|(_, allowed)| !**allowed).map(|(rule, _)| rule.clone()).collect();
    let fix = if missing.is_empty() { String::new() } else { grant(pods, namespace, &missing).await };
    let line = |(rule, allowed): (&Rule, &bool)| {
        let check = format!("{} {}", rule.resource, rule.verb);
        if *allowed {
            Line::new(check, State::Ok, format!("allowed in namespace {namespace}"))
        } else {
            Line::new(check, State::Missing, format!("not allowed in namespace {namespace}")).fix(&fix)
        }
    };
    Ok(needs.iter().zip(&allowed).map(line).collect())
}

/// The YAML that grants these rules, or a sentence if the cluster does not say to whom.
async fn grant(pods: &KubePods, namespace: &str, missing: &[Rule]) -> String {
    let granted = pods.role(namespace, missing).await.ok().and_then(|(role, binding)| yaml(&role, &binding));
    granted.unwrap_or_else(|| "have an administrator of the cluster allow it".into())
}

fn yaml(role: &Role, binding: &RoleBinding) -> Option<String> {
    let (role, binding) = (serde_saphyr::to_string(role).ok()?, serde_saphyr::to_string(binding).ok()?);
    Some(format!("{}\n---\n{}\n", role.trim_end(), binding.trim_end()))
}

/// Whether one watch serves all namespaces.
async fn watch(pods: &KubePods) -> Result<Line, Error> {
    let rule = |verb: &str| Rule { verb: verb.into(), resource: "pods".into(), namespace: String::new() };
    let (list, watch) = (rule("list"), rule("watch"));
    let (list, watch) = tokio::try_join!(pods.allows(&list), pods.allows(&watch))?;
    Ok(if list && watch {
        Line::new("one watch for all", State::Ok, "pods list and watch are allowed in all namespaces")
    } else {
        let detail = "pods list and watch are not allowed in all namespaces; each namespace in use has its own watch";
        Line::new("one watch for all", State::Note, detail)
    })
}

/// A pod from its creation to its deletion.
async fn pod(pods: &KubePods, namespace: &str) -> Line {
    let image = pods.server_image();
    let Err(trouble) = pods.try_pod(namespace).await else {
        let route = if pods.forwards_ports() { "through the API server" } else { "at its own address" };
        return Line::new("pod", State::Ok, format!("{image} ran, was read from {route} and is deleted"));
    };
    let (detail, fix) = match trouble {
        PodTrouble::NotStarted(cause) => (format!("{image} cannot start: {}", sentence(&cause)), fix_start(&cause)),
        PodTrouble::Late(cause) => {
            (format!("{image} has not started within a minute: {}", sentence(&cause)), fix_start(&cause))
        }
        PodTrouble::Failed(step, error) => failed(step, &error, pods.forwards_ports()),
    };
    Line::new("pod", State::Missing, detail).fix(fix)
}

fn failed(step: Step, error: &Error, forwards_ports: bool) -> (String, &'static str) {
    match step {
        Step::Create => (format!("not created: {error}"), "choose a namespace that admits such pods with --namespace"),
        Step::Watch => (format!("its status cannot be watched: {error}"), "see whether kubectl get pods --watch works"),
        Step::Read if forwards_ports => (
            format!("not read: {error}"),
            "see whether kubectl port-forward works; a proxy on the way must let WebSockets through",
        ),
        Step::Read => (
            format!("not read: {error}"),
            "let this pod reach others in the namespace (NetworkPolicy), or use --port-forward",
        ),
        Step::Delete => (format!("not deleted: {error}"), "its own deadline ends it; delete it with kubectl"),
    }
}

/// The reason and message that the cluster gives.
fn sentence(cause: &Cause) -> String {
    match (&*cause.reason, &*cause.message) {
        ("", "") => "the cluster does not say why".into(),
        (one, "") | ("", one) => one.into(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn fix_start(cause: &Cause) -> &'static str {
    match &*cause.reason {
        "Unschedulable" => "make room, or add a node that takes pods without tolerations",
        reason if reason.contains("Image") => {
            "let the nodes pull this image: mirror its registry in their container runtime, or give the namespace's \
             default service account an imagePullSecret"
        }
        _ => "see kubectl get events in this namespace",
    }
}
