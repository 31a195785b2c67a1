//! Workers on a cluster, and the pods that they create.

use super::{Cluster, MINUTE};
use crate::nats::{Installation, Server};
use crate::{eventually, hops, runner};
use futures::StreamExt;
use hops_k8s::pods::Pods;
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s::policy::Policy;
use hops_k8s::serve::metrics::Metrics;
use hops_k8s::serve::worker::{Worker, WorkerOptions};
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

/// Counts the pods that have ever existed in a namespace, by uid.
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
                // The watcher goes on after an error.
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

    /// Waits until this many pods have existed.
    pub async fn at_least(&self, count: usize) {
        let enough = async || if self.count() >= count { Ok(()) } else { Err(self.count()) };
        eventually(&format!("{count} pods have existed"), MINUTE, enough).await;
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Waits until no pod is left.
pub async fn no_pods(cluster: &Cluster) {
    eventually("the pods are gone", MINUTE, async || {
        let pods = cluster.api::<k8s::Pod>().list(&Default::default()).await.unwrap().items;
        if pods.is_empty() { Ok(()) } else { Err(pods.len()) }
    })
    .await;
}

/// Pods with the rights of an administrator.
pub async fn kube() -> KubePods {
    KubePods::connect_by_pod_ip(KubeOptions::default()).await.unwrap()
}

/// Starts a worker in the background. To abort the task is to kill the worker.
pub async fn start(server: &Server, pods: Arc<dyn Pods>) -> JoinHandle<()> {
    start_with(server, pods, 10).await
}

/// Starts a worker that runs this many calls at a time.
pub async fn start_with(server: &Server, pods: Arc<dyn Pods>, concurrency: usize) -> JoinHandle<()> {
    let mut options = WorkerOptions::new(server.url(), server.account());
    options.ack_wait = Duration::from_secs(2);
    options.concurrency = concurrency;
    let runner = runner(pods, Policy::default()).await;
    let worker = Worker::connect(options, watch::channel(runner).1, Arc::new(Metrics::default())).await.unwrap();
    tokio::spawn(async move { worker.run(CancellationToken::new()).await })
}

/// Kills a worker and waits for its end.
pub async fn kill(worker: JoinHandle<()>) {
    worker.abort();
    let _ = worker.await;
}

/// Sends a request for each of these numbers. Its container sleeps for this many seconds and returns the number.
pub async fn request(cluster: &Cluster, installation: &Installation, numbers: Range<usize>, sleep: u32, more: Value) {
    for number in numbers {
        let script = format!("sleep {sleep}; echo [{number}] > /output/result.json");
        let mut inputs = cluster.inputs(json!({"command": ["bash", "-c", script]}));
        inputs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        installation.request("seq", &number.to_string(), inputs.to_string()).await;
    }
}

/// Waits for the results of the requests with the numbers below `count`.
pub async fn awaited(installation: &Installation, count: usize) {
    for number in 0..count {
        let document = installation.awaited("seq", &number.to_string()).await;
        assert_eq!((document.error(), document.json()), ("", &json!([number])));
    }
}

/// A process that is killed when this is dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the command `hops start worker`.
pub fn process(server: &Server, arguments: &[&str]) -> Process {
    let mut command = Command::new(hops());
    // Not the configuration of the user who runs the tests.
    command.env("HOPS_CONFIG", "/dev/null");
    command.args(["start", "worker", "--nats-url", &server.url()]).args(arguments);
    Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}
