//! The plugin's own share of a call: an instance, the inputs, the decisions, the result.

use hops_k8s::pods::PodStatus;
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s_tests::{Document, call, plugin};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CALLS: usize = 5000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pods = Arc::new(Memory::new(|_| {
        Script::default()
            .at(0, PodStatus::exited(0, "Completed", ""))
            .file("result.json", r#"{"greeting":"Hello world!"}"#)
    }));
    let inputs = json!({"image": "bash:5", "command": ["bash", "-c", "true"], "in_files": {"foo.txt": "bar"}});
    let mut times: Vec<Duration> = (0..CALLS)
        .map(|_| {
            let start = Instant::now();
            let text = runtime.block_on(call(pods.clone(), &inputs)).unwrap();
            let time = start.elapsed();
            assert_eq!(Document::parse(&text).error(), "");
            time
        })
        .collect();
    times.sort_unstable();
    println!("component            {} bytes", plugin().inspection().size);
    println!("instantiate + call   {:?} median, {:?} 99th of 100", times[CALLS / 2], times[CALLS * 99 / 100]);
}
