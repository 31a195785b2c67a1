//! The memory of a worker: idle, and with calls in flight on pods that never end.

use hops_k8s::pods::PodStatus;
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::policy::Policy;
use hops_k8s::serve::metrics::Metrics;
use hops_k8s::serve::worker::{Worker, WorkerOptions};
use hops_k8s_tests::nats::{Installation, Server};
use hops_k8s_tests::{eventually, rss, runner};
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
    let runner = runner(pods.clone(), Policy::default()).await;
    let options = WorkerOptions::new(server.url(), server.account());
    let worker =
        Arc::new(Worker::connect(options, watch::channel(runner).1, Arc::new(Metrics::default())).await.unwrap());
    tokio::spawn({
        let worker = worker.clone();
        async move { worker.run(CancellationToken::new()).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = rss::now();
    for number in 0..CALLS {
        installation.request("seq", &number.to_string(), r#"{"image": "bash:5-alpine3.18"}"#).await;
    }
    eventually("all calls have a pod", Duration::from_secs(120), async || {
        let running = worker.in_flight().min(pods.live());
        if running < CALLS { Err(running) } else { Ok(()) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = rss::now();
    let each = busy.saturating_sub(idle) / CALLS as u64;
    println!("resident, idle {idle} KB, with {CALLS} calls in flight {busy} KB: {each} KB a call");
}
