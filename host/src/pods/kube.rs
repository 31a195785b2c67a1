//! Pods in a Kubernetes cluster.
//!
//! A call costs at most four requests: the pod, a ConfigMap if there are input files, the result, the deletion. The
//! statuses of all pods come from one watch. ConfigMaps belong to their pod, so deleting it is the whole clean-up.

mod api;
mod check;
mod connect;
mod fetch;
mod manifest;
mod room;
mod status;
mod watch;

pub use check::{PodTrouble, Step};
pub use connect::{ConnectError, KubeOptions, Source};

use super::{Error, FoundPod, Identity, MOST_LOG_BYTES, Pod, PodSpec, PodStatus, Pods};
use api::{Action, ApiServer, Failure, backoff};
use async_trait::async_trait;
use backon::BackoffBuilder;
use fetch::Route;
use futures::{AsyncReadExt, TryStreamExt};
use k8s_openapi::api::core::v1 as k8s;
use kube::api::{Api, DeleteParams, ListParams, LogParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use manifest::Standard;
use room::{Claim, Room};
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::compat::FuturesAsyncReadCompatExt;
use tokio_util::task::TaskTracker;
use watch::{OUTAGE, Subscription, Watch};

/// Seconds that the containers of a pod whose result is read have to end. Zero would not wait for the node's word, and
/// the next pod could meet a node that is still full.
const GRACE_ENDED: u32 = 1;
/// Seconds that a container that is cut off in the middle has to end.
const GRACE_CANCELLED: u32 = 5;
/// How long to wait for a pod of an earlier try that is being deleted.
const DELETION: Duration = Duration::from_secs(60);
/// Between two looks at it.
const DELETION_PAUSE: Duration = Duration::from_millis(500);
/// How long a namespace is taken for restricted after it said so.
const RESTRICTED: Duration = Duration::from_secs(10 * 60);
/// How long to rest when a pod could not be deleted with patience.
const REST: Duration = Duration::from_secs(5);
/// ConfigMaps of one pod that are created side by side.
const CONFIG_MAPS_AT_ONCE: usize = 4;

/// A cluster, as a place where pods run.
pub struct KubePods {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    server: Arc<ApiServer>,
    source: Source,
    watch: Watch,
    room: Room,
    /// The namespaces that take restricted pods alone, and when they said so.
    restricted: Mutex<HashMap<String, Instant>>,
    options: KubeOptions,
    route: Route,
    /// Creations and deletions that go on when nobody waits for them.
    tasks: TaskTracker,
    runtime: Handle,
}

impl KubePods {
    /// The address of the API server.
    pub fn address(&self) -> &str {
        self.inner.server.address()
    }

    /// Where the address and the credentials come from.
    pub fn source(&self) -> &Source {
        &self.inner.source
    }
}

#[async_trait]
impl Pods for KubePods {
    async fn create(&self, spec: PodSpec, identity: Identity) -> Result<Box<dyn Pod>, Error> {
        let wait_until = Instant::now() + self.inner.options.max_wait;
        let claim = self.inner.claim(&spec, &identity, wait_until).await;
        let mut pod = KubePod::new(self.inner.clone(), &spec, identity, claim, wait_until);
        let spec = Arc::new(spec);
        let mut pauses = backoff().build();
        loop {
            let spec = spec.clone();
            // In a task of its own: a request that is under way cannot be taken back, so somebody must see it through
            // and delete what came of it.
            let (sender, receiver) = oneshot::channel();
            self.inner.tasks.spawn(async move {
                let created = pod.create(&spec).await;
                // If nobody waits any more, the pod is dropped here, while the task still counts as going on.
                let _ = sender.send((pod, created));
            });
            let created;
            (pod, created) = receiver.await.map_err(|_| Error::Other("the pod's creation was broken off".into()))?;
            match created {
                Ok(()) => return Ok(Box::new(pod)),
                Err(Error::QuotaExceeded(_)) if Instant::now() < wait_until && pod.subscription.awaits_quota() => {
                    tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn find(&self, labels: &BTreeMap<String, String>) -> Result<Vec<FoundPod>, Error> {
        self.inner.find(labels).await
    }

    async fn remove(&self, pod: &FoundPod) -> Result<(), Error> {
        let pods: Api<k8s::Pod> = Api::namespaced(self.inner.client.clone(), &pod.namespace);
        let params = delete_params(Some(pod.uid.clone()), GRACE_CANCELLED);
        let action = Action { verb: "delete", resource: "pods", namespace: pod.namespace.clone() };
        let deleted = delete(&self.inner, &pods, &pod.name, &params).await;
        deleted.map_err(|failure| self.inner.server.explain(failure, &action))
    }

    async fn drained(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.tasks.reopen();
    }
}

struct KubePod {
    inner: Arc<Inner>,
    namespace: String,
    identity: Identity,
    uid: Option<String>,
    subscription: Subscription,
    is_adopted: bool,
    /// Whether there is something to delete.
    is_left: bool,
    /// Whether dropping it leaves it to the next call of its identity.
    outlives_call: bool,
}

impl KubePod {
    fn new(inner: Arc<Inner>, spec: &PodSpec, identity: Identity, claim: Claim, wait_until: Instant) -> Self {
        // Before there is a pod, so that no event of it is missed.
        let subscription = inner.watch.subscribe(&spec.namespace, &identity.name, claim, wait_until);
        KubePod {
            namespace: spec.namespace.clone(),
            uid: None,
            subscription,
            is_adopted: false,
            is_left: false,
            outlives_call: identity.outlives_call,
            identity,
            inner,
        }
    }

    fn pods(&self) -> Api<k8s::Pod> {
        Api::namespaced(self.inner.client.clone(), &self.namespace)
    }

    fn action(&self, verb: &'static str, resource: &'static str) -> Action {
        Action { verb, resource, namespace: self.namespace.clone() }
    }

    async fn create(&mut self, spec: &PodSpec) -> Result<(), Error> {
        let created = self.create_with_files(spec).await;
        // After other errors nobody will try again, so nobody will find it.
        let is_found = matches!(created, Ok(()) | Err(Error::Unavailable(_)));
        self.outlives_call = self.identity.outlives_call && is_found;
        created
    }

    async fn create_with_files(&mut self, spec: &PodSpec) -> Result<(), Error> {
        let mut files = manifest::ConfigMaps::plan(&self.identity.name, &spec.input_files)?;
        let pod = self.create_pod(spec, &files).await?;
        let uid = pod.uid().ok_or_else(|| Error::Other("the API server gave the pod no uid".into()))?;
        self.uid = Some(uid.clone());
        files.rename(&pod);
        self.subscription.found(&pod);

        // After the pod, because they belong to it; the node waits for them.
        let this = &*self;
        futures::stream::iter(files.manifests(&this.identity, &uid).map(Ok))
            .try_for_each_concurrent(CONFIG_MAPS_AT_ONCE, |manifest| this.create_config_map(manifest))
            .await
    }

    async fn create_config_map(&self, manifest: k8s::ConfigMap) -> Result<(), Error> {
        let config_maps: Api<k8s::ConfigMap> = Api::namespaced(self.inner.client.clone(), &self.namespace);
        let params = PostParams::default();
        match self.inner.server.request(|| config_maps.create(&params, &manifest)).await {
            Ok(_) => Ok(()),
            // The answer to an earlier try was lost, or the pod is adopted.
            Err(failure) if failure.is("AlreadyExists") => Ok(()),
            Err(failure) => Err(self.inner.server.explain(failure, &self.action("create", "configmaps"))),
        }
    }

    /// Creates the pod, or adopts the one that is there: of an earlier try of which the answer was lost, or of an
    /// earlier call. One that is on its way out is waited for and made anew.
    async fn create_pod(&mut self, spec: &PodSpec, files: &manifest::ConfigMaps<'_>) -> Result<k8s::Pod, Error> {
        let (pods, params, keep) = (self.pods(), PostParams::default(), spec.keep);
        let (inner, create, get) = (self.inner.clone(), self.action("create", "pods"), self.action("get", "pods"));
        let mut standard = inner.standard(&spec.namespace);
        let mut manifest = manifest::pod(&self.identity, spec, files, &inner.options, standard);
        let start = Instant::now();
        loop {
            self.is_left = !keep;
            let failure = match self.inner.server.request(|| pods.create(&params, &manifest)).await {
                Ok(pod) => return Ok(pod),
                Err(failure) => failure,
            };
            if standard == Standard::Baseline && failure.is_for_want_of_restriction() {
                standard = Standard::Restricted;
                inner.restricted().insert(spec.namespace.clone(), Instant::now());
                manifest = manifest::pod(&self.identity, spec, files, &inner.options, standard);
                continue;
            }
            // Until it is known to be ours, it is not ours to delete.
            self.is_left = !keep && failure.may_have_arrived;
            let exists = failure.is("AlreadyExists");
            // What was created unheard takes up the quota that a second try runs into.
            let may_exist = failure.may_have_arrived && !failure.may_pass();
            if !exists && !may_exist {
                return Err(inner.server.explain(failure, &create));
            }
            let name = &self.identity.name;
            let found = self.inner.server.request(|| pods.get_opt(name)).await;
            let found = found.map_err(|failure| inner.server.explain(failure, &get))?;
            match found {
                Some(pod) if !manifest::is_of(&pod, &self.identity) => {
                    self.is_left = false;
                    let what = format!("a pod named {name} that is not of this call is in the way; delete it");
                    return Err(Error::Other(what));
                }
                Some(pod) if pod.metadata.deletion_timestamp.is_none() => {
                    // With a random identity it is this very call's.
                    self.is_adopted = self.identity.outlives_call;
                    self.is_left = !keep;
                    return Ok(pod);
                }
                Some(_) if start.elapsed() > DELETION => {
                    let what = format!("the pod {name} of an earlier try is still being deleted");
                    return Err(Error::Unavailable(what));
                }
                None if !exists => return Err(inner.server.explain(failure, &create)),
                _ => tokio::time::sleep(DELETION_PAUSE).await,
            }
        }
    }

    fn delete_params(&self) -> DeleteParams {
        delete_params(self.uid.clone(), if self.subscription.has_ended() { GRACE_ENDED } else { GRACE_CANCELLED })
    }
}

impl Inner {
    fn restricted(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.restricted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the pods of a namespace may be, as far as is known.
    fn standard(&self, namespace: &str) -> Standard {
        match self.restricted().get(namespace) {
            Some(learned) if learned.elapsed() < RESTRICTED => Standard::Restricted,
            _ => Standard::Baseline,
        }
    }

    /// Waits until a pod may be created. One that is there already does not wait: others may do so for the room that it
    /// takes up.
    async fn claim(&self, spec: &PodSpec, identity: &Identity, until: Instant) -> Claim {
        if let Some(claim) = self.room.try_claim(spec) {
            return claim;
        }
        if identity.outlives_call {
            let pods: Api<k8s::Pod> = Api::namespaced(self.client.clone(), &spec.namespace);
            if !matches!(self.server.request(|| pods.get_opt(&identity.name)).await, Ok(None)) {
                return self.room.claim_at_once(spec);
            }
        }
        self.room.claim(spec, until).await
    }

    async fn find(&self, labels: &BTreeMap<String, String>) -> Result<Vec<FoundPod>, Error> {
        let params = ListParams::default().labels(&manifest::selector(labels));
        let all: Api<k8s::Pod> = Api::all(self.client.clone());
        let found = match self.server.request(|| all.list(&params)).await {
            Ok(pods) => pods.items,
            Err(failure) if failure.is("Forbidden") => {
                let mut found = vec![];
                for namespace in self.watch.namespaces() {
                    let pods: Api<k8s::Pod> = Api::namespaced(self.client.clone(), &namespace);
                    let action = Action { verb: "list", resource: "pods", namespace };
                    let listed = self.server.request(|| pods.list(&params)).await;
                    found.extend(listed.map_err(|failure| self.server.explain(failure, &action))?);
                }
                found
            }
            Err(failure) => {
                let action = Action { verb: "list", resource: "pods", namespace: String::new() };
                return Err(self.server.explain(failure, &action));
            }
        };
        let found = found.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(found.filter_map(found_pod).collect())
    }
}

fn found_pod(pod: k8s::Pod) -> Option<FoundPod> {
    let metadata = pod.metadata;
    Some(FoundPod {
        namespace: metadata.namespace?,
        name: metadata.name?,
        uid: metadata.uid?,
        annotations: metadata.annotations.unwrap_or_default(),
        created: metadata.creation_timestamp?.0.into(),
    })
}

fn delete_params(uid: Option<String>, grace: u32) -> DeleteParams {
    let preconditions = uid.map(|uid| Preconditions { uid: Some(uid), resource_version: None });
    DeleteParams { preconditions, ..DeleteParams::default() }.grace_period(grace)
}

async fn delete(inner: &Inner, pods: &Api<k8s::Pod>, name: &str, params: &DeleteParams) -> Result<(), Failure> {
    match inner.server.request(|| pods.delete(name, params)).await {
        Ok(_) => Ok(()),
        // Somebody else was faster; with another uid, it is another pod.
        Err(failure) if failure.is("NotFound") || failure.is("Conflict") => Ok(()),
        Err(failure) => Err(failure),
    }
}

#[async_trait]
impl Pod for KubePod {
    fn name(&self) -> &str {
        &self.identity.name
    }

    fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    async fn changed(&mut self) -> Result<PodStatus, Error> {
        self.subscription.changed().await
    }

    async fn read_file(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        fetch::file(&self.inner, &self.namespace, &self.identity.name, &self.subscription, path, limit).await
    }

    async fn tail_logs(&mut self, lines: u32) -> Result<String, Error> {
        let params = LogParams {
            container: Some(manifest::MAIN.into()),
            tail_lines: Some(lines.into()),
            limit_bytes: i64::try_from(MOST_LOG_BYTES).ok(),
            ..LogParams::default()
        };
        let pods = self.pods();
        let read = || async {
            let mut log = vec![];
            let mut stream = pods.log_stream(&self.identity.name, &params).await?;
            stream.read_to_end(&mut log).await.map_err(kube::Error::ReadEvents)?;
            // Nobody promises that it is text.
            Ok(String::from_utf8_lossy(&log).into_owned())
        };
        let log = self.inner.server.request(read).await;
        log.map_err(|failure| self.inner.server.explain(failure, &self.action("get", "pods/log")))
    }

    async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error> {
        let params = LogParams { container: Some(manifest::MAIN.into()), follow: true, ..LogParams::default() };
        let pods = self.pods();
        let log = self.inner.server.request(|| pods.log_stream(&self.identity.name, &params)).await;
        let log = log.map_err(|failure| self.inner.server.explain(failure, &self.action("get", "pods/log")))?;
        Ok(Box::pin(log.compat()))
    }

    async fn delete(&mut self) -> Result<(), Error> {
        if !self.is_left {
            return Ok(());
        }
        self.subscription.leaves();
        delete(&self.inner, &self.pods(), &self.identity.name, &self.delete_params())
            .await
            .map_err(|failure| self.inner.server.explain(failure, &self.action("delete", "pods")))?;
        self.is_left = false;
        Ok(())
    }
}

impl Drop for KubePod {
    fn drop(&mut self) {
        if !self.is_left || self.outlives_call {
            return;
        }
        self.subscription.leaves();
        let (inner, pods, params) = (self.inner.clone(), self.pods(), self.delete_params());
        let name = self.identity.name.clone();
        // One that may not even exist is not worth so long a wait.
        let patience = if self.uid.is_some() { OUTAGE } else { Duration::ZERO };
        let deletion = async move {
            let start = Instant::now();
            while let Err(failure) = delete(&inner, &pods, &name, &params).await {
                let may_pass = failure.may_pass() || failure.has_code(401);
                if !may_pass || start.elapsed() >= patience {
                    tracing::warn!(pod = name, %failure, "pod not deleted; its own deadline will end it");
                    break;
                }
                tokio::time::sleep(REST).await;
            }
        };
        self.inner.tasks.spawn_on(deletion, &self.inner.runtime);
    }
}
