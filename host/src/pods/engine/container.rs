//! What an engine is asked to create.

use super::Inner;
use crate::pods::PodSpec;
use crate::pods::resources::Resources;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The least CPU that engines accept, in billionths.
const LEAST_NANO_CPUS: u64 = 10_000_000;
/// The most processes and threads of a container: what Podman allows. Kubernetes leaves it to the node, and Docker has no
/// limit.
const MOST_PROCESSES: u32 = 2048;
/// The most of a container's log that is kept on disk: files and their size, as the kubelet has it.
const LOG_FILES: (&str, &str) = ("5", "10m");

/// The body of a request that creates a container. Without `resources`, it can use all that the engine can.
pub(super) fn body(inner: &Inner, spec: &PodSpec, image: &str, resources: Option<Resources>) -> Value {
    let words = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
    // Of two variables of one name, a pod's container sees the last and an engine's the first.
    let env: BTreeMap<&str, &str> = spec.env.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut host = Map::new();
    let mut set = |name: &str, value: Value| host.insert(name.into(), value);
    // An anonymous volume: it is removed with the container, and starts empty whatever the image has there.
    set("Mounts", json!([{"Type": "volume", "Target": spec.output_dir, "VolumeOptions": {"NoCopy": true}}]));
    if let Some(resources) = resources {
        let memory = number(resources.memory);
        set("Memory", json!(memory));
        // Memory and swap together: equal to the memory, so that there is no swap.
        set("MemorySwap", json!(memory));
        set("NanoCpus", json!(number(resources.nano_cpus.max(LEAST_NANO_CPUS))));
        set("PidsLimit", json!(MOST_PROCESSES));
    }
    // Of the other drivers, some have limits of their own and some do not write to this machine's disk.
    if inner.logging_driver == "json-file" {
        let (files, size) = LOG_FILES;
        set("LogConfig", json!({"Type": "json-file", "Config": {"max-file": files, "max-size": size}}));
    }
    json!({
        "Image": image,
        "Entrypoint": words(&spec.command),
        "Cmd": words(&spec.args),
        "Env": env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "Labels": labels(inner, spec),
        "HostConfig": host,
    })
}

/// As engines read numbers.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn labels(inner: &Inner, spec: &PodSpec) -> Map<String, Value> {
    let ours = [
        ("app.kubernetes.io/managed-by", "hops-k8s"),
        ("hiphops-io/for", "workflow-step"),
        ("hiphops-io/skip_cleanup", if spec.keep { "true" } else { "false" }),
    ];
    let mut labels: Map<_, _> = ours.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    // A container that is to be kept has no owner: no other process removes it.
    if let (Some(owner), false) = (&inner.owner, spec.keep) {
        let owner = owner.labels(Duration::from_millis(spec.lifetime_ms));
        labels.extend(owner.map(|(name, value)| (name.to_owned(), value.into())));
    }
    labels
}
