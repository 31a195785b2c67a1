//! The cluster in `KUBECONFIG`. Each test has a namespace of its own, and checks at its end that the namespace is empty.

pub mod service;

use crate::{Document, call, eventually, skip};
use hops_k8s::pods::Pods;
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use http::{Method, Request};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::env;
use std::fmt::Debug;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// How long tests wait for what a cluster does in seconds.
pub const MINUTE: Duration = Duration::from_secs(60);

/// The service account with the rights that `deploy/role.yaml` gives.
const ACCOUNT: &str = "hops";

/// What a skipped test obeys: with `required`, it fails.
const REQUIRED: &str = "HOPS_TEST_CLUSTER";

/// How results are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    PodIp,
    PortForward,
}

/// A namespace of the cluster.
pub struct Cluster {
    /// With the rights of an administrator.
    pub client: Client,
    pub namespace: String,
    /// With the rights that `deploy/role.yaml` gives, and no others.
    pub pods: Arc<KubePods>,
    kubeconfig: TempDir,
}

/// A client with the rights of an administrator.
pub async fn administrator() -> Client {
    Client::try_default().await.expect("no cluster: set KUBECONFIG to the kubeconfig of one")
}

/// Stops and starts components of a cluster on this machine: `ctl("stop", "kube-apiserver")`. Skips the test if
/// `HOPS_TEST_CLUSTER_CTL` names no program that does it.
pub fn ctl() -> Option<impl Fn(&str, &str)> {
    let Some(program) = env::var_os("HOPS_TEST_CLUSTER_CTL") else {
        skip(REQUIRED, "HOPS_TEST_CLUSTER_CTL names no program that stops and starts components of the cluster");
        return None;
    };
    Some(move |verb: &str, component: &str| {
        let status = Command::new(&program).args([verb, component]).status();
        assert!(status.expect("HOPS_TEST_CLUSTER_CTL is a program").success(), "{verb} {component}");
    })
}

/// The API server's audit log. Says so if `HOPS_TEST_AUDIT_LOG` names none: a part of the test is skipped then.
pub fn audit_log() -> Option<fs::File> {
    let Some(path) = env::var_os("HOPS_TEST_AUDIT_LOG") else {
        skip(REQUIRED, "HOPS_TEST_AUDIT_LOG names no audit log, so not all requests are counted");
        return None;
    };
    Some(fs::File::open(path).expect("HOPS_TEST_AUDIT_LOG can be read"))
}

/// The rules in `deploy/role.yaml`.
pub fn rules() -> Vec<PolicyRule> {
    let all = include_str!("../../host/deploy/role.yaml").split("---\n");
    let mut roles =
        all.map(|text| serde_saphyr::from_str::<Value>(text).unwrap()).filter(|object| object["kind"] == "Role");
    serde_json::from_value(roles.next().unwrap()["rules"].take()).unwrap()
}

impl Cluster {
    /// Creates a namespace in which pods can run.
    pub async fn start(route: Route) -> Self {
        let client = administrator().await;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let millis = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("hops-test-{millis}-{}-{number}", std::process::id());
        let object = Namespace {
            metadata: ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .expect("the cluster creates a namespace");
        let admin = KubePods::connect(KubeOptions::default()).await.unwrap();
        let kubeconfig = tempfile::tempdir().unwrap();
        let mut cluster = Cluster { pods: Arc::new(admin), client, namespace, kubeconfig };
        let accounts: Api<ServiceAccount> = cluster.api();
        eventually("the namespace has its service account", MINUTE, async || {
            accounts.get_opt("default").await.unwrap().ok_or("not yet")
        })
        .await;
        cluster.account(ACCOUNT, json!(rules())).await;
        cluster.kubeconfig = cluster.kubeconfig_of(ACCOUNT).await;
        let mut options = KubeOptions::default();
        options.kubeconfig = Some(cluster.kubeconfig.path().join("config"));
        let pods = match route {
            Route::PodIp => KubePods::connect_by_pod_ip(options).await,
            Route::PortForward => KubePods::connect(options).await,
        };
        cluster.pods = Arc::new(pods.unwrap());
        cluster
    }

    /// Pods with the same rights, and the requests that are made for them.
    pub async fn with_requests(&self, route: Route) -> (Arc<KubePods>, Requests) {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig.path().join("config")).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        // Each try counts.
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let requests = Requests::default();
        let counted = requests.clone();
        let service = tower::service_fn(move |request| {
            counted.count(&request);
            let client = client.clone();
            async move { client.send(request).await }
        });
        let mut options = KubeOptions::default();
        options.port_forward = route == Route::PortForward;
        (Arc::new(KubePods::new(Client::new(service, "default"), options)), requests)
    }

    /// A folder with a kubeconfig for a service account, in the file `config`.
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

    /// The inputs of a call with a small pod in this namespace.
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

    /// Creates a service account with these rights.
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

    /// Creates a role and its binding to a service account. Returns when the API server applies them, which is a moment
    /// after it has stored them.
    pub async fn grant(&self, account: &str, role: Value, binding: Value) {
        let role: Role = self.create(role).await;
        let _: RoleBinding = self.create(binding).await;
        let user = self.user_of(account);
        for PolicyRule { resources, verbs, .. } in role.rules.unwrap_or_default() {
            for resource in resources.unwrap_or_default() {
                for verb in &verbs {
                    self.may(&user, verb, &resource).await;
                }
            }
        }
    }

    /// The cluster's name for the user whose rights `pods` has.
    pub fn user(&self) -> String {
        self.user_of(ACCOUNT)
    }

    fn user_of(&self, account: &str) -> String {
        format!("system:serviceaccount:{}:{account}", self.namespace)
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
        eventually("the service account has its rights", MINUTE, async || {
            let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
            if answer.status.is_some_and(|status| status.allowed) { Ok(()) } else { Err(format!("{verb} {resource}")) }
        })
        .await;
    }

    /// The only pod in the namespace, as soon as it exists.
    pub async fn the_pod(&self) -> Pod {
        eventually("one pod exists", MINUTE, async || {
            let pods = self.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
            <[Pod; 1]>::try_from(pods).map(|[pod]| pod)
        })
        .await
    }

    /// The only pod in the namespace, as soon as it runs.
    pub async fn running_pod(&self) -> Pod {
        eventually("the pod runs", MINUTE, async || {
            let pod = self.the_pod().await;
            match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
                Some("Running") => Ok(pod),
                other => Err(other.map(str::to_owned)),
            }
        })
        .await
    }

    /// Waits until no pod and no ConfigMap is left, and deletes the namespace.
    pub async fn end(self) {
        self.pods.drained().await;
        eventually("the namespace is empty", MINUTE, async || {
            let pods = self.api::<Pod>().list(&ListParams::default()).await.unwrap();
            let maps = self.api::<ConfigMap>().list(&ListParams::default()).await.unwrap();
            let names = pods.iter().map(ResourceExt::name_any).chain(maps.iter().map(ResourceExt::name_any));
            // Kubernetes creates this one.
            let left: Vec<String> = names.filter(|name| name != "kube-root-ca.crt").collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

/// Counts requests to the API server by kind, in the words of a Role: `create pods`, `get pods/portforward`.
#[derive(Clone, Default)]
pub struct Requests(Arc<Mutex<BTreeMap<String, usize>>>);

impl Requests {
    fn count<B>(&self, request: &Request<B>) {
        let path: Vec<&str> = request.uri().path().split('/').collect();
        let what = match path[..] {
            ["", "api", "v1", "namespaces", _, resource, _, subresource] => format!("{resource}/{subresource}"),
            ["", "api", "v1", "namespaces", _, resource, ..] => resource.to_owned(),
            _ => format!("all {}", path[path.len() - 1]),
        };
        let query = request.uri().query().unwrap_or_default();
        let verb = match *request.method() {
            Method::POST => "create",
            Method::DELETE => "delete",
            _ if query.contains("watch=true") => "watch",
            _ if path.len() < 7 => "list",
            _ => "get",
        };
        *self.0.lock().unwrap().entry(format!("{verb} {what}")).or_default() += 1;
    }

    /// How many there were of each kind.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.0.lock().unwrap().clone()
    }
}
