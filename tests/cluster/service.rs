//! Workers on a cluster, and the pods that there were.

use super::harness::{Cluster, until};
use futures::StreamExt;
use hops_k8s::pods::Pods;
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s::policy::Policy;
use hops_k8s::serve::metrics::Metrics;
use hops_k8s::serve::worker::{Worker, WorkerOptions};
use hops_k8s_tests::nats::{Installation, Server};
use hops_k8s_tests::{hops, runner};
use k8s_openapi::api::core::v1 as k8s;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The pods that there ever were in a namespace, by uid.
pub struct Seen {
    uids: Arc<Mutex<BTreeSet<String>>>,
    watch: JoinHandle<()>,
}

impl Seen {
    pub fn watch(cluster: &Cluster) -> Self {
        let uids: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let seen = uids.clone();
        let mut events = watcher(cluster.api::<k8s::Pod>(), watcher::Config::default()).default_backoff().boxed();
        let watch = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                // After an error it goes on.
                if let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event {
                    seen.lock().unwrap().insert(pod.uid().unwrap());
                }
            }
        });
        Seen { uids, watch }
    }

    pub fn count(&self) -> usize {
        self.uids.lock().unwrap().len()
    }

    /// Returns when there were so many.
    pub async fn at_least(&self, count: usize) {
        until("so many pods were there", || async { if self.count() >= count { Ok(()) } else { Err(self.count()) } })
            .await;
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

pub async fn no_pods(cluster: &Cluster) {
    until("the pods are gone", || async {
        let pods = cluster.api::<k8s::Pod>().list(&Default::default()).await.unwrap().items;
        if pods.is_empty() { Ok(()) } else { Err(pods.len()) }
    })
    .await;
}

pub async fn kube() -> KubePods {
    KubePods::connect_by_pod_ip(KubeOptions::default()).await.unwrap()
}

/// Starts a worker in the background. Aborting the task ends it as a kill would.
pub async fn start(server: &Server, pods: Arc<dyn Pods>) -> JoinHandle<()> {
    start_with(server, pods, 10).await
}

/// Starts a worker that runs so many calls at a time.
pub async fn start_with(server: &Server, pods: Arc<dyn Pods>, concurrency: usize) -> JoinHandle<()> {
    let mut options = WorkerOptions::new(server.url(), server.account());
    options.ack_wait = Duration::from_secs(2);
    options.concurrency = concurrency;
    let app = runner(pods, Policy::default()).await;
    let worker = Worker::connect(options, watch::channel(app).1, Arc::new(Metrics::default())).await.unwrap();
    tokio::spawn(async move { worker.run(CancellationToken::new()).await })
}

pub async fn kill(worker: JoinHandle<()>) {
    worker.abort();
    let _ = worker.await;
}

/// Sends requests of these numbers, each to sleep for so many seconds and to return its number.
pub async fn request(cluster: &Cluster, installation: &Installation, numbers: Range<usize>, sleep: u32, more: Value) {
    for number in numbers {
        let script = format!("sleep {sleep}; echo [{number}] > /output/result.json");
        let mut inputs = cluster.inputs(json!({"command": ["bash", "-c", script]}));
        inputs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        installation.request("seq", &number.to_string(), inputs.to_string()).await;
    }
}

/// Waits for their results.
pub async fn awaited(installation: &Installation, count: usize) {
    for number in 0..count {
        let document = installation.awaited("seq", &number.to_string()).await;
        assert_eq!((document.error(), document.json()), ("", &json!([number])));
    }
}

/// The command, as a process of its own, which is killed with the value.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a worker as a process.
pub fn process(server: &Server, arguments: &[&str]) -> Process {
    let mut command = Command::new(hops());
    // No configuration of whoever runs the tests.
    command.env("HOPS_CONFIG", "/dev/null");
    command.args(["start", "worker", "--nats-url", &server.url()]).args(arguments);
    Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}
