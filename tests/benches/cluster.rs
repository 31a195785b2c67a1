//! How long calls take on the cluster in `KUBECONFIG`, beside the same containers as bare pods, and how many requests a
//! worker serves in a minute.

use futures::StreamExt;
use hops_k8s::pods::Pods;
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s::policy::Policy;
use hops_k8s::serve::metrics::Metrics;
use hops_k8s::serve::worker::{Worker, WorkerOptions};
use hops_k8s_tests::nats::{Installation, Server};
use hops_k8s_tests::{Document, call, runner};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "bash:5-alpine3.18";
const SCRIPT: &str = r#"echo '{"greeting": "Hello world!"}' > /output/result.json"#;
/// The default of a call, and little enough for half of [`TOGETHER`] to fit on an idle node of two cores.
const CPU: [&str; 2] = ["250m", "25m"];
const ROUNDS: usize = 20;
const TURNS: usize = 3;
const TOGETHER: usize = 100;
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() {
    let client = Client::try_default().await.expect("set KUBECONFIG to the kubeconfig of a cluster");
    let bare = Bare { api: Api::default_namespaced(client) };
    let pods = Arc::new(KubePods::connect_by_pod_ip(KubeOptions::default()).await.unwrap());
    let forwarded = Arc::new(KubePods::connect(KubeOptions::default()).await.unwrap());

    // The first of each pays for connections, the watch and the compiler.
    bare.run(1, 1).await;
    call_one(&pods).await;
    call_one(&forwarded).await;

    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(bare.run(1, 1).await);
        times[1].push(call_one(&pods).await);
        times[2].push(call_one(&forwarded).await);
    }
    println!("one at a time, median of {ROUNDS}, interleaved");
    for (what, times) in
        ["bare pod, create to terminated", "call, by pod IP", "call, by port-forward"].iter().zip(times)
    {
        println!("  {what:32} {:?}", median(times));
    }
    let mut latencies = Requests::start(pods.clone()).await;
    println!("  {:32} {:?}", "request to result, by pod IP", median(latencies.one_at_a_time(ROUNDS).await));

    println!("{TOGETHER} at once, in a minute, {TURNS} times");
    for _ in 0..TURNS {
        println!("  {:32} {:.0}", "bare pods of two containers", per_minute(bare.run(TOGETHER, 2).await));
        for (what, pods) in [("requests, by pod IP", &pods), ("requests, by port-forward", &forwarded)] {
            let requests = Requests::start(pods.clone()).await;
            println!("  {what:32} {:.0}", per_minute(requests.together(TOGETHER).await));
        }
    }
}

fn per_minute(time: Duration) -> f64 {
    TOGETHER as f64 / time.as_secs_f64() * 60.0
}

/// A queue and a worker that serves it.
struct Requests {
    pods: Arc<KubePods>,
    installation: Installation,
    sent: usize,
    _server: Server,
    stop: CancellationToken,
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Requests {
    async fn start(pods: Arc<KubePods>) -> Self {
        let server = Server::start(1024 * 1024);
        let installation = Installation::start(&server).await;
        let runner = runner(pods.clone(), Policy::default()).await;
        let options = WorkerOptions::new(server.url(), server.account());
        let worker = Worker::connect(options, watch::channel(runner).1, Arc::new(Metrics::default())).await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn({
            let stop = stop.clone();
            async move { worker.run(stop).await }
        });
        Requests { pods, installation, sent: 0, _server: server, stop }
    }

    /// The times from a request to its result.
    async fn one_at_a_time(&mut self, count: usize) -> Vec<Duration> {
        let mut times = vec![];
        for _ in 0..count {
            let start = Instant::now();
            let message = self.send(CPU[0]).await;
            assert_eq!(self.installation.awaited("seq", &message).await.error(), "");
            times.push(start.elapsed());
            self.pods.drained().await;
        }
        times
    }

    /// The time from the first of many requests to the last result.
    async fn together(mut self, count: usize) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            self.send(CPU[1]).await;
        }
        for message in 0..count {
            assert_eq!(self.installation.awaited("seq", &message.to_string()).await.error(), "");
        }
        let time = start.elapsed();
        self.installation.all_answered().await;
        self.pods.drained().await;
        time
    }

    async fn send(&mut self, cpu: &str) -> String {
        let message = self.sent.to_string();
        self.sent += 1;
        let inputs = json!({"image": IMAGE, "command": ["bash", "-c", SCRIPT], "cpu": cpu, "start_timeout": "10m"});
        self.installation.request("seq", &message, inputs.to_string()).await;
        message
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn cpu(count: usize) -> &'static str {
    if count == 1 { CPU[0] } else { CPU[1] }
}

/// The time that a call takes.
async fn call_one(pods: &Arc<KubePods>) -> Duration {
    let start = Instant::now();
    let inputs = json!({"image": IMAGE, "command": ["bash", "-c", SCRIPT], "cpu": CPU[0]});
    let document = call(pods.clone(), &inputs).await.unwrap();
    assert_eq!(Document::parse(&document).error(), "");
    let time = start.elapsed();
    pods.drained().await;
    time
}

struct Bare {
    api: Api<Pod>,
}

impl Bare {
    /// Runs bare pods and returns the time until the container `main` of the last has ended.
    async fn run(&self, count: usize, containers: usize) -> Duration {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let label = format!("bare-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let config = watcher::Config::default().labels(&format!("bench={label}"));
        let mut pods = pin!(watcher(self.api.clone(), config).default_backoff().applied_objects());
        let start = Instant::now();
        let mut waiting = HashSet::new();
        let creates: Vec<_> = (0..count)
            .map(|number| {
                let (api, pod) = (self.api.clone(), pod(&label, number, containers, cpu(count)));
                tokio::spawn(async move { api.create(&PostParams::default(), &pod).await.unwrap().name_any() })
            })
            .collect();
        for create in creates {
            waiting.insert(create.await.unwrap());
        }
        while !waiting.is_empty() {
            let next = timeout(LIMIT, pods.next()).await.expect("a pod changes within five minutes");
            // The watcher goes on after an error.
            let Ok(pod) = next.unwrap() else { continue };
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            let main = statuses.and_then(|all| all.iter().find(|status| status.name == "main"));
            if main.and_then(|status| status.state.as_ref()).is_some_and(|state| state.terminated.is_some())
                && waiting.remove(&pod.name_any())
            {
                let api = self.api.clone();
                let soon = DeleteParams::default().grace_period(1);
                tokio::spawn(async move { api.delete(&pod.name_any(), &soon).await.unwrap() });
            }
        }
        start.elapsed()
    }
}

fn name(label: &str, number: usize) -> String {
    format!("{label}-{number}")
}

fn pod(label: &str, number: usize, containers: usize, cpu: &str) -> Pod {
    let volume = json!({"name": "output", "mountPath": "/output"});
    let resources = json!({"limits": {"cpu": cpu, "memory": "128Mi"}});
    let main = json!({
        "name": "main", "image": IMAGE, "command": ["bash", "-c", SCRIPT], "volumeMounts": [volume],
        "resources": resources,
    });
    let second = json!({
        "name": "second", "image": "halverneus/static-file-server:v1.8.10", "volumeMounts": [volume],
        "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": {"cpu": "10m", "memory": "16Mi"}},
    });
    let containers: Vec<_> = [main, second].into_iter().take(containers).collect();
    serde_json::from_value(json!({
        "metadata": {"name": name(label, number), "labels": {"bench": label}},
        "spec": {
            "containers": containers, "restartPolicy": "Never", "automountServiceAccountToken": false,
            "volumes": [{"name": "output", "emptyDir": {}}],
        },
    }))
    .unwrap()
}
