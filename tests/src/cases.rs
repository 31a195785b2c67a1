//! What every backend of pods must do: the calls of `backends/cases.json`, as `backends/README.md` describes them.

use crate::vector::Pod;
use crate::{Document, call};
use futures::StreamExt;
use hops_k8s::pods::Pods;
use hops_k8s::pods::memory::{Memory, Script};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// How many calls run at a time.
const AT_ONCE: usize = 8;

/// A backend of pods.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    Memory,
    Process,
    Engine,
    Kube,
}

/// A call and its result.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Case {
    name: String,
    inputs: Value,
    /// What the container does on scripted pods.
    #[serde(default)]
    pod: Value,
    error: Option<String>,
    error_start: Option<String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    json: Value,
    /// The backends that cannot do it, each with the reason.
    #[serde(default)]
    not_on: HashMap<Backend, String>,
}

impl Case {
    fn is_met_by(&self, document: &Document) -> bool {
        let is_error_right = match (&self.error, &self.error_start) {
            (None, Some(start)) => document.error().starts_with(start),
            (error, None) => document.error() == error.as_deref().unwrap_or_default(),
            (Some(_), Some(_)) => panic!("{}: expected either error or error-start", self.name),
        };
        is_error_right && document.body() == self.body && *document.json() == self.json
    }

    /// The pod reads like a vector's pod, of which one state is given.
    fn script(&self) -> Script {
        let ended = json!({"terminated": {"exit-code": 0, "reason": "Completed", "message": ""}});
        let part = |key: &str, default: Value| self.pod.get(key).cloned().unwrap_or(default);
        let state = json!({
            "at-ms": 0,
            "phase": "running",
            "main": part("main", ended),
            "sidecar": "running",
            "unschedulable": part("unschedulable", Value::Null),
        });
        let pod = json!({"states": [state], "files": part("files", json!({})), "log": part("log", json!(""))});
        serde_json::from_value::<Pod>(pod).unwrap_or_else(|error| panic!("{}: {error}", self.name)).script()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body: String = self.body.chars().take(200).collect();
        let (error, start) = (&self.error, &self.error_start);
        write!(f, "error {error:?}, start of the error {start:?}, body {body:?}, json {}", self.json)
    }
}

/// All cases, in the order of the file.
fn cases() -> Vec<Case> {
    let mut cases: Value = serde_json::from_str(include_str!("../backends/cases.json")).expect("the cases are JSON");
    write_out(&mut cases);
    serde_json::from_value(cases).expect("the cases have the form that the README describes")
}

/// Writes out the texts that the file abbreviates.
fn write_out(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(write_out),
        Value::Object(entries) => {
            let text = match (entries.get("repeat"), entries.get("times"), entries.get("numbers")) {
                (Some(Value::String(text)), Some(times), None) => {
                    text.repeat(times.as_u64().and_then(|times| times.try_into().ok()).expect("a number of times"))
                }
                (None, None, Some(Value::Array(range))) => {
                    let ends: Vec<u64> = range.iter().filter_map(Value::as_u64).collect();
                    let [first, last] = ends[..] else { panic!("a range has two numbers: {range:?}") };
                    (first..=last).map(|number| format!("{number}\n")).collect()
                }
                _ => return entries.values_mut().for_each(write_out),
            };
            *value = text.into();
        }
        _ => {}
    }
}

/// Runs all cases, with `base` among the inputs of each call, and fails if a result is not as expected.
pub async fn check(backend: Backend, pods: Arc<dyn Pods>, base: &Value) {
    check_with(backend, |_| pods.clone(), base).await;
}

/// Runs all cases on scripted pods.
pub async fn check_memory() {
    let pods = |case: &Case| -> Arc<dyn Pods> {
        let script = case.script();
        Arc::new(Memory::new(move |_| script.clone()))
    };
    check_with(Backend::Memory, pods, &json!({"image": "bash:5"})).await;
}

async fn check_with(backend: Backend, pods: impl Fn(&Case) -> Arc<dyn Pods>, base: &Value) {
    let outcomes = futures::stream::iter(cases()).map(|case| {
        let mut inputs = base.clone();
        for (name, value) in case.inputs.as_object().expect("inputs are an object") {
            inputs[name] = value.clone();
        }
        let pods = pods(&case);
        async move {
            if let Some(reason) = case.not_on.get(&backend) {
                return (format!("{}: not on {backend:?}: {reason}", case.name), true);
            }
            let document = Document::parse(&call(pods, &inputs).await.expect("the plugin gives a document"));
            if case.is_met_by(&document) {
                return (format!("{}: ok", case.name), true);
            }
            let found: String = document.0.to_string().chars().take(2000).collect();
            (format!("{}: expected {case}\n  found {found}", case.name), false)
        }
    });
    let outcomes: Vec<_> = outcomes.buffered(AT_ONCE).collect().await;
    for (outcome, _) in &outcomes {
        println!("{backend:?}: {outcome}");
    }
    let wrong: Vec<_> = outcomes.iter().filter(|(_, is_right)| !is_right).map(|(outcome, _)| outcome).collect();
    assert!(wrong.is_empty(), "not as on other backends: {wrong:#?}");
}
