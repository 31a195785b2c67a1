//! A namespace of its own for each test, and proof that nothing is left in it.

use hops_k8s::pods::Pods;
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s_tests::{Document, call};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How results are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    PodIp,
    PortForward,
}

/// A real cluster, the one in `KUBECONFIG`.
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
    pub pods: Arc<KubePods>,
}

impl Cluster {
    /// Makes a namespace in which pods can run.
    pub async fn start(route: Route) -> Self {
        let client = Client::try_default().await.expect("no cluster: set KUBECONFIG to the kubeconfig of one");
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let millis = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("hops-test-{millis}-{}-{number}", std::process::id());
        let object = Namespace {
            metadata: ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        Api::all(client.clone()).create(&PostParams::default(), &object).await.expect("the cluster makes a namespace");
        let options = KubeOptions::default();
        let pods = match route {
            Route::PodIp => KubePods::connect_by_pod_ip(options).await,
            Route::PortForward => KubePods::connect(options).await,
        };
        let cluster = Cluster { pods: Arc::new(pods.unwrap()), client, namespace };
        let accounts: Api<ServiceAccount> = cluster.api();
        until("the namespace has its service account", || async {
            accounts.get_opt("default").await.unwrap().ok_or("not yet")
        })
        .await;
        cluster
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The inputs of a small pod in this namespace.
    pub fn inputs(&self, more: Value) -> Value {
        let mut inputs =
            json!({"image": "bash:5-alpine3.18", "namespace": self.namespace, "cpu": "10m", "memory": "32Mi"});
        for (name, value) in more.as_object().unwrap() {
            inputs[name] = value.clone();
        }
        inputs
    }

    /// Runs a call in this namespace.
    pub async fn call(&self, more: Value) -> Document {
        let text = call(self.pods.clone(), &self.inputs(more)).await.unwrap();
        Document::parse(&text)
    }

    /// Runs a script in bash.
    pub async fn bash(&self, script: &str) -> Document {
        self.call(json!({"command": ["bash", "-c", script]})).await
    }

    /// Creates an object from its manifest.
    pub async fn create<K>(&self, manifest: Value) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + Debug,
        K::DynamicType: Default,
    {
        let object: K = serde_json::from_value(manifest).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    /// The one pod in the namespace, as soon as it is there.
    pub async fn the_pod(&self) -> Pod {
        until("there is one pod", || async {
            let pods = self.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
            <[Pod; 1]>::try_from(pods).map(|[pod]| pod)
        })
        .await
    }

    /// Checks that no pod and no ConfigMap is left or going to stay, and deletes the namespace.
    pub async fn end(self) {
        self.pods.drained().await;
        until("the namespace is empty", || async {
            let pods = self.api::<Pod>().list(&ListParams::default()).await.unwrap();
            let maps = self.api::<ConfigMap>().list(&ListParams::default()).await.unwrap();
            let names = pods.iter().map(ResourceExt::name_any).chain(maps.iter().map(ResourceExt::name_any));
            // That one is Kubernetes' own.
            let left: Vec<String> = names.filter(|name| name != "kube-root-ca.crt").collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

/// Waits until something is so.
pub async fn until<T, E: Debug, F: Future<Output = Result<T, E>>>(what: &str, mut is_so: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        match is_so().await {
            Ok(value) => return value,
            Err(state) if start.elapsed() > Duration::from_secs(60) => panic!("not within a minute: {what}: {state:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
