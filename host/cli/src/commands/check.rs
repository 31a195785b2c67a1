//! `hops check`: what works, what is missing, and how to mend it.

use crate::backend;
use crate::exit::{CommandError, Status};
use crate::files::config::{Config, in_home};
use crate::files::policy;
use crate::global::Global;
use crate::interrupt::Interrupt;
use crate::logging::colours;
use crate::output::progress;
use crate::queue::Queue;
use clap::builder::styling::{AnsiColor, Style};
use futures::future::try_join_all;
use hops_k8s::pods::engine::{EngineOptions, EnginePods};
use hops_k8s::pods::kube::{KubePods, PodTrouble, Source, Step};
#[cfg(target_os = "linux")]
use hops_k8s::pods::process::{ProcessOptions, ProcessPods};
use hops_k8s::pods::{Cause, Error, Pods, Rule};
use serde::Serialize;
use std::io::Write;
use std::time::Duration;

/// For a cluster that is in order, this is enough.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that a program which fetches credentials may take: it may have somebody log in.
const CREDENTIALS: Duration = Duration::from_secs(30);

/// What to look at.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The namespace that calls will run in
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Run no pod
    #[arg(long)]
    no_pod: bool,
    /// Print a JSON array of objects with check, state, detail and mend
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Calls fail without it.
    Missing,
    /// Good to know.
    Note,
}

impl State {
    fn word(self) -> (&'static str, Style) {
        match self {
            State::Ok => ("ok", AnsiColor::Green.on_default()),
            State::Missing => ("missing", AnsiColor::Red.on_default()),
            State::Note => ("note", AnsiColor::Yellow.on_default()),
        }
    }
}

/// What was found about one thing.
#[derive(Serialize)]
struct Line {
    check: String,
    state: State,
    detail: String,
    /// What to do, or the YAML to apply.
    mend: Option<String>,
}

impl Line {
    fn new(check: impl Into<String>, state: State, detail: impl Into<String>) -> Self {
        Line { check: check.into(), state, detail: detail.into(), mend: None }
    }

    /// From a sentence that ends with what to do, after a semicolon.
    fn mendable(check: &str, state: State, sentence: &str) -> Self {
        let (detail, mend) =
            sentence.rsplit_once("; ").map_or((sentence, None), |(detail, mend)| (detail, Some(mend.into())));
        Line { mend, ..Line::new(check, state, detail) }
    }

    fn missing(check: &str, sentence: &str) -> Self {
        Line::mendable(check, State::Missing, sentence)
    }

    fn unchecked(check: &str, why: &str) -> Self {
        Line::new(check, State::Note, format!("not checked: {why}"))
    }
}

pub(crate) async fn check(global: &Global, config: &Config, arguments: &Arguments) -> Result<Status, CommandError> {
    let spinner = progress::spinner(global.quiet);
    spinner.set_message("checking");
    let (mut lines, is_reached) = match connect(global).await {
        Ok(pods) => {
            let mut interrupt = Interrupt::listen()?;
            let found = tokio::select! {
                found = cluster(&pods, arguments) => Some(found),
                () = interrupt.next() => None,
            };
            pods.drained().await;
            found.ok_or_else(|| CommandError {
                status: Status::Interrupted,
                message: "interrupted; the pod is deleted".into(),
            })?
        }
        Err(line) => {
            let others = ["cluster", "rules", "pod"];
            let unchecked = others.map(|check| Line::unchecked(check, "no cluster is known"));
            ([line].into_iter().chain(unchecked).collect(), false)
        }
    };
    let (queue, local) = tokio::join!(queue(global, config), local());
    lines.push(policy(global));
    lines.extend(queue);
    lines.extend(local);
    spinner.finish_and_clear();
    print(&lines, arguments.json);
    Ok(if !is_reached {
        Status::Unavailable
    } else if lines.iter().any(|line| line.state == State::Missing) {
        Status::Errored
    } else {
        Status::Completed
    })
}

async fn connect(global: &Global) -> Result<KubePods, Line> {
    let mut options = global.kube_options();
    options.patience = PATIENCE;
    // In a task of its own: a program that fetches credentials blocks its thread.
    let connecting = tokio::spawn(KubePods::connect(options));
    match tokio::time::timeout(CREDENTIALS, connecting).await {
        Ok(Ok(Ok(pods))) => Ok(pods),
        Ok(Ok(Err(error))) => Err(Line::missing("kubeconfig", &backend::with_remedy(&error))),
        Ok(Err(error)) => Err(Line::missing("kubeconfig", &error.to_string())),
        Err(_) => Err(Line::missing(
            "kubeconfig",
            &format!(
                "the program that it names for credentials does not end within {} s; run kubectl get pods and see what \
                 it waits for",
                CREDENTIALS.as_secs()
            ),
        )),
    }
}

/// All that calls need of the cluster, and whether it answers.
async fn cluster(pods: &KubePods, arguments: &Arguments) -> (Vec<Line>, bool) {
    let mut lines = vec![Line::new("kubeconfig", State::Ok, source(pods.source(), pods.address().unwrap_or_default()))];
    match pods.version().await {
        Ok(version) => lines.push(Line::new("cluster", State::Ok, format!("Kubernetes {version}"))),
        Err(error) => {
            lines.push(Line::missing("cluster", &error.to_string()));
            lines.extend(["rules", "pod"].map(|check| Line::unchecked(check, "the cluster is out of reach")));
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
            let detail = format!("the cluster does not say what is allowed: {}", error);
            let mend = Some("see with kubectl auth whoami who this user is to the cluster".into());
            lines.push(Line { mend, ..Line::new("rules", State::Missing, detail) });
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
    let role = if missing.is_empty() {
        None
    } else {
        let anonymous = |_| "have an administrator of the cluster allow it".into();
        Some(pods.role(namespace, &missing).await.unwrap_or_else(anonymous))
    };
    let line = |(rule, allowed): (&Rule, &bool)| {
        let check = format!("{} {}", rule.resource, rule.verb);
        if *allowed {
            Line::new(check, State::Ok, format!("allowed in namespace {namespace}"))
        } else {
            let detail = format!("not allowed in namespace {namespace}");
            Line { mend: role.clone(), ..Line::new(check, State::Missing, detail) }
        }
    };
    Ok(needs.iter().zip(&allowed).map(line).collect())
}

/// Whether one watch serves all namespaces.
async fn watch(pods: &KubePods) -> Result<Line, Error> {
    let rule = |verb: &str| Rule { verb: verb.into(), resource: "pods".into(), namespace: String::new() };
    let (list, watch) = (rule("list"), rule("watch"));
    let (list, watch) = tokio::try_join!(pods.allows(&list), pods.allows(&watch))?;
    Ok(if list && watch {
        Line::new("one watch for all", State::Ok, "pods list and watch are allowed in all namespaces")
    } else {
        let detail = "pods list and watch are not allowed in all namespaces; each in use has a watch of its own";
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
    let (detail, mend) = match trouble {
        PodTrouble::NotStarted(cause) => (format!("{image} cannot start: {}", said(&cause)), mend_start(&cause)),
        PodTrouble::Late(cause) => {
            (format!("{image} has not started within a minute: {}", said(&cause)), mend_start(&cause))
        }
        PodTrouble::Failed(Step::Create, error) => {
            (format!("not created: {}", error), "choose a namespace that admits such pods with --namespace")
        }
        PodTrouble::Failed(Step::Watch, error) => {
            (format!("its status cannot be followed: {}", error), "see whether kubectl get pods --watch works")
        }
        PodTrouble::Failed(Step::Read, error) => {
            let mend = if pods.forwards_ports() {
                "see whether kubectl port-forward works; a proxy on the way must let WebSockets through"
            } else {
                "let this pod reach others in the namespace (NetworkPolicy), or use --port-forward"
            };
            (format!("not read: {}", error), mend)
        }
        PodTrouble::Failed(Step::Delete, error) => {
            (format!("not deleted: {}", error), "its own deadline ends it; delete it with kubectl")
        }
    };
    Line { mend: Some(mend.into()), ..Line::new("pod", State::Missing, detail) }
}

/// The cluster's words.
fn said(cause: &Cause) -> String {
    match (&*cause.reason, &*cause.message) {
        ("", "") => "the cluster does not say why".into(),
        (one, "") | ("", one) => one.into(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn mend_start(cause: &Cause) -> &'static str {
    match &*cause.reason {
        "Unschedulable" => "make room, or add a node that takes pods without tolerations",
        reason if reason.contains("Image") => {
            "let the nodes pull this image: mirror its registry in their container runtime, or give the namespace's \
             default service account an imagePullSecret"
        }
        _ => "see kubectl get events in this namespace",
    }
}

/// What calls may ask for here.
fn policy(global: &Global) -> Line {
    let path = global.policy.as_deref();
    match policy::load(path) {
        Ok(policy) => {
            let place = path.map_or("none".into(), |path| path.display().to_string());
            Line::new("policy", State::Ok, format!("{place}: {policy}"))
        }
        Err(failure) => {
            Line { mend: Some("mend the file".into()), ..Line::new("policy", State::Missing, failure.message) }
        }
    }
}

/// What `hops start` needs beside a cluster. Without a key file that is of no concern.
async fn queue(global: &Global, config: &Config) -> Vec<Line> {
    let url = std::env::var("HOPS_NATS_URL").ok();
    let queue = match Queue::find(global, config, url.as_deref(), None) {
        Ok(Some(queue)) => queue,
        Ok(None) => {
            let place = in_home("hiphops.key").unwrap_or_default();
            let sentence = format!(
                "there is none, and only hops start needs one; put the one that you got from hops at {}, or name it \
                 with --keyfile",
                place.display()
            );
            return vec![Line::mendable("key file", State::Note, &sentence)];
        }
        Err(error) => return vec![Line::missing("key file", &error)],
    };
    let mut lines = vec![];
    if let Some(path) = &queue.key_file {
        let (path, account) = (path.display(), &queue.account);
        lines.push(if queue.is_open {
            let sentence = format!("{path} can be read by other users of this machine; run chmod 600 {path}");
            Line::mendable("key file", State::Note, &sentence)
        } else {
            Line::new("key file", State::Ok, format!("{path}, account {account}"))
        });
    }
    lines.push(match queue.version().await {
        Ok(version) => Line::new("queue", State::Ok, format!("NATS {version} at {}", queue.host)),
        Err(error) => Line::missing("queue", &error),
    });
    lines
}

/// What `hops run --local` finds. Calls in a cluster need none of it.
async fn local() -> [Line; 2] {
    let engine = async {
        match EnginePods::connect(EngineOptions::default()).await {
            Ok(engine) => Line::new("local engine", State::Ok, engine.description()),
            Err(error) => Line::mendable("local engine", State::Note, &error.to_string()),
        }
    };
    let process = async {
        match process().await {
            Ok(()) => Line::new("local process", State::Ok, "this machine allows sandboxes"),
            Err(why) => Line::mendable("local process", State::Note, &why),
        }
    };
    tokio::join!(engine, process).into()
}

#[cfg(target_os = "linux")]
async fn process() -> Result<(), String> {
    let pods = ProcessPods::new(ProcessOptions::default());
    let allowed = pods.check().await;
    pods.drained().await;
    allowed.map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
async fn process() -> Result<(), String> {
    Err("sandboxes need Linux; use a local engine".into())
}

fn print(lines: &[Line], json: bool) {
    let mut text = String::new();
    if json {
        text = serde_json::to_string_pretty(lines).unwrap_or_default() + "\n";
    } else {
        let is_coloured = colours(&std::io::stdout());
        let width = lines.iter().map(|line| line.check.len()).max().unwrap_or_default();
        for line in lines {
            let (word, style) = line.state.word();
            let style = if is_coloured { style } else { Style::new() };
            text += &format!("{style}{word:7}{style:#}  {:width$}  {}\n", line.check, line.detail);
            if let Some(mend) = line.mend.as_ref().filter(|mend| !is_manifest(mend)) {
                text += &format!("{:7}  {:width$}  → {mend}\n", "", "");
            }
        }
        // All missing rules have the same.
        if let Some(manifest) = lines.iter().filter_map(|line| line.mend.as_ref()).find(|mend| is_manifest(mend)) {
            text += "\nWhat is missing is granted by an administrator with\n\n";
            text += &format!("kubectl apply -f - <<'END'\n{manifest}END\n");
        }
    }
    // A reader that has seen enough, such as `head`, is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn is_manifest(mend: &str) -> bool {
    mend.contains('\n')
}
