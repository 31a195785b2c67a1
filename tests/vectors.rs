//! The vectors in the host of this repository, and whether they are enough for other hosts.

use hops_k8s::document::CallResult;
use hops_k8s::imports::clocks::ClocksCtx;
use hops_k8s::plugin::{CallCtx, CallError};
use hops_k8s::pods::memory::Memory;
use hops_k8s::policy::Policy;
use hops_k8s_tests::plugin;
use hops_k8s_tests::vector::{self, Vector};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use wit_parser::{Resolve, TypeDefKind};

/// With `HOPS_UPDATE_VECTORS` set, the results of this host are written into the files, for you to review.
#[tokio::test(start_paused = true)]
async fn every_vector_gives_its_result() {
    let is_update = std::env::var_os("HOPS_UPDATE_VECTORS").is_some();
    let vectors = Vector::all();
    let mut failed = vec![];
    for vector in &vectors {
        let (found, specs, left) = play(vector).await;
        let spec = specs.first().filter(|_| vector.spec.is_some());
        if is_update {
            update(vector, &found, spec);
            continue;
        }
        let expected = (&vector.result, &vector.call_error, vector.spec.as_ref(), vector.pods_left);
        let found = (&found.as_ref().ok().cloned(), &found.err(), spec, left);
        if found != expected {
            failed.push(format!("{}: expected {expected:#?}, found {found:#?}", vector.name));
        }
    }
    println!("Rust: {} of {} vectors passed", vectors.len() - failed.len(), vectors.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Returns the result or the call error, the specs of the pods, and how many pods are left.
async fn play(vector: &Vector) -> (Result<String, Value>, Vec<Value>, usize) {
    let script = vector.script();
    let pods = Arc::new(Memory::new(move |_| script.clone()));
    let start = (humantime::parse_rfc3339(&vector.time).unwrap(), Instant::now());
    let mut policy = Policy::default();
    (policy.service_account, policy.image_pull_secrets, policy.node_selector) = (true, true, true);
    let ctx = CallCtx::new(pods.clone(), Arc::new(policy))
        .clocks(ClocksCtx::with_wall_clock(move || start.0 + start.1.elapsed()));
    let called = plugin().call(ctx, &vector.handler, vector.inputs()).await.map_err(|error| match error {
        CallError::UnknownHandler(message) => json!({"unknown-handler": message}),
        error => panic!("{}: {error}", vector.name),
    });
    (called.map(CallResult::into_text), pods.created().iter().map(vector::spec).collect(), pods.live())
}

/// What `vectors/README.md` says about `check`.
#[tokio::test(start_paused = true)]
async fn check_finds_the_problems_that_the_result_reports() {
    for vector in Vector::all() {
        let Ok(problems) = plugin().check(&vector.handler, vector.inputs()).await else {
            assert!(vector.call_error.is_some(), "{}", vector.name);
            continue;
        };
        let (result, specs, _) = play(&vector).await;
        assert_eq!(specs.is_empty(), !problems.is_empty(), "{}", vector.name);
        if !problems.is_empty() {
            let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            let document: Value = serde_json::from_str(&result.unwrap()).unwrap();
            assert_eq!(document["hops"]["error"], format!("InvalidInputs: {}", messages.join("; ")), "{}", vector.name);
        }
    }
}

/// A host that translates all vectors translates every case and every field of the contract.
#[test]
fn the_vectors_use_everything_in_the_contract() {
    let mut resolve = Resolve::default();
    resolve.push_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
    let (mut answers, mut requests) = (BTreeSet::new(), BTreeSet::new());
    for (_, kind) in &resolve.types {
        let names: Vec<String> = match &kind.kind {
            TypeDefKind::Record(record) => record.fields.iter().map(|field| field.name.clone()).collect(),
            TypeDefKind::Enum(of) => of.cases.iter().map(|case| case.name.clone()).collect(),
            TypeDefKind::Variant(variant) => variant.cases.iter().map(|case| case.name.clone()).collect(),
            _ => continue,
        };
        match kind.name.as_deref().unwrap() {
            "phase" | "cause" | "terminated" | "container-state" | "pod-status" | "rule" | "refusal" | "excess"
            | "error" => answers.extend(names),
            "pod-spec" => requests.extend(names),
            // A file is a part of `pod-spec`. The others are not part of what pods answer.
            "file" | "datetime" | "handler" | "description" | "problem" | "call-error" => {}
            other => panic!("decide whether the vectors have to use {other}"),
        }
    }
    assert!(answers.contains("quota-exceeded") && requests.contains("node-selector"));
    for vector in Vector::all() {
        let vector: Value = serde_json::from_str(&vector.text).unwrap();
        remove_words(&vector["pod"], &mut answers);
        let is_set = |value: &Value| ![json!(""), json!([]), json!(false), Value::Null].contains(value);
        requests.retain(|name| !is_set(&vector["spec"][name]));
    }
    assert_eq!((answers, requests), (BTreeSet::new(), BTreeSet::new()), "no vector uses these");
}

/// Removes the keys and the strings in `value` from `names`.
fn remove_words(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => _ = names.remove(text),
        Value::Array(items) => items.iter().for_each(|item| remove_words(item, names)),
        Value::Object(entries) => {
            for (key, value) in entries {
                names.remove(key);
                remove_words(value, names);
            }
        }
        _ => {}
    }
}

fn update(vector: &Vector, found: &Result<String, Value>, spec: Option<&Value>) {
    // The text is edited and not written anew, so that the order of the keys stays.
    let mut text = vector.text.trim_end().trim_end_matches('}').trim_end().to_owned();
    for key in ["spec", "result", "call-error"] {
        if let Some(at) = text.find(&format!(",\n  \"{key}\":")) {
            let end = text[at + 1..].find(",\n  \"").map_or(text.len(), |end| at + 1 + end);
            text.replace_range(at..end, "");
        }
    }
    let mut add = |key: &str, value: &Value| {
        let value = serde_json::to_string_pretty(value).unwrap().replace('\n', "\n  ");
        text.push_str(&format!(",\n  \"{key}\": {value}"));
    };
    if let Some(spec) = spec {
        add("spec", spec);
    }
    match found {
        Ok(document) => add("result", &json!(document)),
        Err(error) => add("call-error", error),
    }
    let path = format!("{}/vectors/{}.json", env!("CARGO_MANIFEST_DIR"), vector.name);
    std::fs::write(path, text + "\n}\n").unwrap();
}

/// The pods take no time here: what is measured is the host.
#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn overhead() {
    let vectors = Vector::all();
    let vector = vectors.iter().find(|vector| vector.name == "immediate").unwrap();
    let mut times: Vec<Duration> = vec![];
    for _ in 0..1000 {
        let start = std::time::Instant::now();
        play(vector).await.0.unwrap();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("Rust: median of {} calls: {:?}", times.len(), times[times.len() / 2]);
}
