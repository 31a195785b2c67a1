//! A cluster in this process, with a clock that runs fast.

use crate::forward;
use crate::kubelet::{Results, exits};
use crate::server::Server;
use hops_k8s::pods::Pods;
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s_tests::{Document, call, dir_with, eventually};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// After the second time on the scenario's clock, that clock stops for the first time on the machine's clock.
const STEP: (Duration, Duration) = (Duration::from_micros(250), Duration::from_millis(200));

/// How long pods wait for room that other pods of this process take up.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// Plays a scenario. Minutes pass in fractions of a second, because its clock is Tokio's paused clock, which jumps ahead
/// whenever no task is ready. Tokio cannot see bytes on their way between sockets, so the clock is stopped now and then
/// for them to arrive. On a slow machine the clock is slow too, so no time-out comes early.
pub fn play(scenario: impl AsyncFnOnce()) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let clock = tokio::spawn(async {
            loop {
                // While a blocking task runs, Tokio stops the clock.
                tokio::task::spawn_blocking(|| std::thread::sleep(STEP.0)).await.unwrap();
                sleep(STEP.1).await;
            }
        });
        tokio::time::timeout(Duration::from_secs(600), scenario()).await.expect("the scenario has an end");
        clock.abort();
    });
}

/// How results are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    PodIp,
    PortForward,
}

/// What an embedding program gives to reach the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Kubeconfig,
    /// A kubeconfig that names a proxy.
    Proxy,
    Config,
    Client,
}

/// An API server, its pods and a client.
pub struct Cluster {
    pub pods: Arc<KubePods>,
    pub server: Arc<Server>,
    pub results: Results,
    serving: Vec<JoinHandle<()>>,
}

impl Deref for Cluster {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Cluster {
    /// Nothing fails until the scenario says so.
    pub async fn start() -> Self {
        Self::with(Route::PodIp, Duration::ZERO).await
    }

    /// One that the embedding program reaches in this way.
    pub async fn reached_by(access: Access) -> Self {
        Self::open(access, Route::PodIp, Duration::ZERO).await
    }

    /// One whose result server begins to listen after this time.
    pub async fn with(route: Route, results_after: Duration) -> Self {
        Self::open(Access::Kubeconfig, route, results_after).await
    }

    async fn open(access: Access, route: Route, results_after: Duration) -> Self {
        let server = Arc::new(Server::default());
        server.script(exits(0));
        let (results, socket) = Results::bind().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut config = json!({
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            // An empty list of certificates. Without it, each scenario would read those of the machine.
            "clusters": [{"name": "test", "cluster": {"server": address, "certificate-authority-data": "bm9uZQ=="}}],
            "users": [{"name": "test", "user": {"token": "a-token"}}],
        });
        let mut serving = vec![];
        if access == Access::Proxy {
            let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}", proxy.local_addr().unwrap());
            config["clusters"][0]["cluster"]["proxy-url"] = address.into();
            serving.push(tokio::spawn(forward::proxy(proxy, listener.local_addr().unwrap())));
        }
        let dir = dir_with(&[("config", &config.to_string())]);
        let mut options = KubeOptions::default();
        options.server_port = results.address.port();
        options.max_wait = MAX_WAIT;
        let kubeconfig: Kubeconfig = serde_json::from_value(config).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let pods = match (access, route) {
            (Access::Config, _) => KubePods::from_config(config, options).unwrap(),
            (Access::Client, _) => {
                config.default_retry = false;
                KubePods::new(Client::try_from(config).unwrap(), options)
            }
            (Access::Kubeconfig | Access::Proxy, route) => {
                options.kubeconfig = Some(dir.path().join("config"));
                match route {
                    Route::PodIp => KubePods::connect_by_pod_ip(options).await.unwrap(),
                    Route::PortForward => KubePods::connect(options).await.unwrap(),
                }
            }
        };
        serving.extend([
            tokio::spawn(server.clone().serve(listener, results.address)),
            tokio::spawn(results.clone().serve(socket, results_after)),
        ]);
        Cluster { pods: Arc::new(pods), server, results, serving }
    }

    /// Runs a call.
    pub async fn call(&self, more: Value) -> Document {
        run(self.pods.clone(), more).await
    }

    /// Runs a call and checks that it succeeds. Returns the time that it took.
    pub async fn succeeds(&self) -> Duration {
        let start = Instant::now();
        let document = self.call(json!({})).await;
        assert_eq!((document.error(), document.json()), ("", &json!({"answer": 42})));
        start.elapsed()
    }

    /// Starts a call in the background.
    pub fn begin(&self, more: Value) -> JoinHandle<Document> {
        tokio::spawn(run(self.pods.clone(), more))
    }

    /// Checks that `created` pods were created in all, that nothing is left of them, and that no connection is open.
    pub async fn end(self, created: usize) {
        self.pods.drained().await;
        until("the pods are gone", || self.store().pods.is_empty()).await;
        assert_eq!(self.store().config_maps.keys().collect::<Vec<_>>(), Vec::<&(String, String)>::new());
        assert_eq!(self.store().created, created, "pods created");
        assert_eq!(Arc::strong_count(&self.pods), 1, "something still holds the client");
        drop(self.pods);
        let open = || (self.server.watches.load(Ordering::Relaxed), self.server.connections.load(Ordering::Relaxed));
        until("no connection is open", || open() == (0, 0)).await;
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

async fn run(pods: Arc<KubePods>, more: Value) -> Document {
    let mut inputs = json!({"image": "bash:5", "in_files": {"a.txt": "input"}});
    inputs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Document::parse(&call(pods, &inputs).await.unwrap())
}

/// Waits for a condition.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    eventually(what, Duration::from_secs(20), async || if is_so() { Ok(()) } else { Err("not yet") }).await;
}
