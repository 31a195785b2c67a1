//! What a worker takes of memory: idle, and with calls in flight on pods that sleep.

use hops_k8s::pods::PodStatus;
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::policy::Policy;
use hops_k8s::serve::metrics::Metrics;
use hops_k8s::serve::worker::{Worker, WorkerOptions};
use hops_k8s_tests::nats::{Installation, Server};
use hops_k8s_tests::runner;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const CALLS: usize = 1000;

#[tokio::main]
async fn main() {
    let server = Server::start(1024 * 1024);
    let installation = Installation::start(&server).await;
    let pods = Arc::new(Memory::new(|_| {
        Script::default().at(0, PodStatus::waiting("ContainerCreating", "")).at(100, PodStatus::running())
    }));
    let app = runner(pods.clone(), Policy::default()).await;
    let options = WorkerOptions::new(server.url(), server.account());
    let worker = Arc::new(Worker::connect(options, watch::channel(app).1, Arc::new(Metrics::default())).await.unwrap());
    tokio::spawn({
        let worker = worker.clone();
        async move { worker.run(CancellationToken::new()).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = resident();
    for number in 0..CALLS {
        installation.request("seq", &number.to_string(), r#"{"image": "bash:5-alpine3.18"}"#).await;
    }
    while worker.in_flight() < CALLS || pods.live() < CALLS {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = resident();
    println!("resident, idle {idle} KB, with {CALLS} calls in flight {busy} KB: {} KB a call", (busy - idle) / CALLS);
}

/// The memory of this process, in KB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
