//! The vectors in this crate's own host.

use hops_k8s::imports::clocks::ClocksCtx;
use hops_k8s::plugin::{CallCtx, CallError};
use hops_k8s::pods::memory::Memory;
use hops_k8s::policy::Policy;
use hops_k8s_tests::plugin;
use hops_k8s_tests::vector::{self, Vector};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// With `HOPS_UPDATE_VECTORS` set, the files are given what this host makes of them, for you to look at.
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

/// The result or the call error, the specs of the pods, and how many are left.
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
    (called, pods.created().iter().map(vector::spec).collect(), pods.live())
}

fn update(vector: &Vector, found: &Result<String, Value>, spec: Option<&Value>) {
    // As pairs, so that their order stays.
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

/// Nothing a host does takes time here, so that what is left is the host's own.
#[tokio::test]
#[ignore = "measures, and tests nothing"]
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
