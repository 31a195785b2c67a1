//! A namespace of its own for each test, and proof that nothing is left in it.

use hops_k8s::pods::Pods;
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s_tests::{Document, call};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::config::Kubeconfig;
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// How results are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    PodIp,
    PortForward,
}

/// A namespace of a real cluster, the one in `KUBECONFIG`.
pub struct Cluster {
    /// For an administrator.
    pub client: Client,
    pub namespace: String,
    /// For somebody who may do what `deploy/role.yaml` says, and no more.
    pub pods: Arc<KubePods>,
    kubeconfig: TempDir,
}

/// The rules that `deploy/role.yaml` gives.
pub fn rules() -> Vec<PolicyRule> {
    let all = include_str!("../../host/deploy/role.yaml").split("---\n");
    let mut roles =
        all.map(|text| serde_saphyr::from_str::<Value>(text).unwrap()).filter(|object| object["kind"] == "Role");
    serde_json::from_value(roles.next().unwrap()["rules"].take()).unwrap()
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
        let admin = KubePods::connect(KubeOptions::default()).await.unwrap();
        let kubeconfig = tempfile::tempdir().unwrap();
        let mut cluster = Cluster { pods: Arc::new(admin), client, namespace, kubeconfig };
        let accounts: Api<ServiceAccount> = cluster.api();
        until("the namespace has its service account", || async {
            accounts.get_opt("default").await.unwrap().ok_or("not yet")
        })
        .await;
        cluster.account("hops", json!(rules())).await;
        cluster.kubeconfig = cluster.kubeconfig_of("hops").await;
        let mut options = KubeOptions::default();
        options.kubeconfig = Some(cluster.kubeconfig.path().join("config"));
        let pods = match route {
            Route::PodIp => KubePods::connect_by_pod_ip(options).await,
            Route::PortForward => KubePods::connect(options).await,
        };
        cluster.pods = Arc::new(pods.unwrap());
        cluster
    }

    /// A kubeconfig for a service account: the file `config` in this folder.
    pub async fn kubeconfig_of(&self, account: &str) -> TempDir {
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let accounts = self.api::<ServiceAccount>();
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        let mut config = serde_json::to_value(Kubeconfig::read().unwrap()).unwrap();
        let cluster_name = config["clusters"][0]["name"].clone();
        config["users"] = json!([{"name": "u", "user": {"token": answer.status.unwrap().token}}]);
        config["contexts"] = json!([{"name": "c", "context": {"cluster": cluster_name, "user": "u"}}]);
        config["current-context"] = json!("c");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config"), config.to_string()).unwrap();
        dir
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

    /// A service account of this name that may do this.
    pub async fn account(&self, name: &str, rules: Value) {
        let _: ServiceAccount = self.create(json!({"metadata": {"name": name}})).await;
        let role = json!({"metadata": {"name": name}, "rules": rules});
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}],
        });
        self.grant(name, role, binding).await;
    }

    /// Creates a role and its binding to a service account, and returns when the API server heeds them, which is a
    /// moment after it has stored them.
    pub async fn grant(&self, account: &str, role: Value, binding: Value) {
        let role: Role = self.create(role).await;
        let _: RoleBinding = self.create(binding).await;
        let user = format!("system:serviceaccount:{}:{account}", self.namespace);
        for PolicyRule { resources, verbs, .. } in role.rules.unwrap_or_default() {
            for resource in resources.unwrap_or_default() {
                for verb in &verbs {
                    self.may(&user, verb, &resource).await;
                }
            }
        }
    }

    async fn may(&self, user: &str, verb: &str, resource: &str) {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.into()),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(self.namespace.clone()),
                    verb: Some(verb.into()),
                    resource: Some(resource.into()),
                    subresource: Some(subresource.into()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        until("the account may do it", || async {
            let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
            if answer.status.is_some_and(|status| status.allowed) { Ok(()) } else { Err(format!("{verb} {resource}")) }
        })
        .await;
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
