//! Pods in a Kubernetes cluster.
//!
//! A call costs at most four requests: the pod, a ConfigMap if there are input files, the result, the deletion. The
//! statuses of all pods come from one watch. ConfigMaps belong to their pod, so deleting the pod is the whole clean-up.

mod api;
mod body;
mod check;
mod connect;
mod fetch;
mod manifest;
mod pages;
mod room;
mod status;
mod watch;

pub use api::ObserveRequests;
pub use check::{PodTrouble, Step};
pub use connect::{ConnectError, KubeOptions, Source};

use super::{Error, FoundPod, Identity, MOST_LOG_BYTES, Pod, PodSpec, PodStatus, Pods};
use api::{Action, ApiServer, RequestError, backoff};
use async_trait::async_trait;
use backon::BackoffBuilder;
use fetch::Route;
use futures::{AsyncReadExt, TryStreamExt};
use k8s_openapi::api::core::v1 as k8s;
use kube::api::{Api, DeleteParams, LogParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use manifest::Standard;
use pages::Pages;
use room::{Claim, Room};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
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

/// Seconds that the containers of a pod get to end once the user's container has ended. With zero, the pod would be gone
/// before its node has freed the room, and the next pod could be refused there.
const GRACE_ENDED: u32 = 1;
/// Seconds that the containers get to end while the user's container still runs.
const GRACE_RUNNING: u32 = 5;
/// How long a new pod waits until an earlier one of its name is deleted.
const DELETION: Duration = Duration::from_secs(60);
/// The pause between two looks at a pod that is being deleted.
const DELETION_PAUSE: Duration = Duration::from_millis(500);
/// How long a namespace counts as restricted after it refused a pod.
const RESTRICTED: Duration = Duration::from_secs(10 * 60);
/// The pause after a deletion has failed with all its tries.
const REST: Duration = Duration::from_secs(5);
/// How many ConfigMaps of one pod are created at the same time.
const CONFIG_MAPS_AT_ONCE: usize = 4;

/// The pods of a Kubernetes cluster.
pub struct KubePods {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    server: Arc<ApiServer>,
    source: Source,
    watch: Watch,
    room: Room,
    /// The namespaces that accept restricted pods only, and when that was learned.
    restricted: Mutex<HashMap<String, Instant>>,
    options: KubeOptions,
    route: Route,
    /// Creations and deletions that go on even if nobody waits for them.
    tasks: TaskTracker,
    runtime: Handle,
}

impl KubePods {
    /// The address of the API server. `None` if the embedding program brought its own client.
    pub fn address(&self) -> Option<&str> {
        self.inner.server.address()
    }

    /// Where the address and the credentials come from.
    pub fn source(&self) -> &Source {
        &self.inner.source
    }
}

impl fmt::Debug for KubePods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { source, options, .. } = &*self.inner;
        f.debug_struct("KubePods")
            .field("address", &self.address())
            .field("source", source)
            .field("options", options)
            .finish_non_exhaustive()
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
            // A request that was sent cannot be taken back. In a task of its own it is seen through even if this future
            // is dropped, so that the pod it creates is deleted.
            let (sender, receiver) = oneshot::channel();
            self.inner.tasks.spawn(async move {
                let created = pod.create(&spec).await;
                // If nobody waits any more, this drops the pod while the task still counts as running.
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
        let params = delete_params(Some(pod.uid.clone()), GRACE_RUNNING);
        let action = Action { verb: "delete", resource: "pods", namespace: pod.namespace.clone() };
        let deleted = delete(&self.inner, &pods, &pod.name, &params).await;
        deleted.map_err(|error| self.inner.server.explain(error, &action))
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
    /// Whether there is, or may be, a pod for this call to delete.
    is_left: bool,
    /// Whether a pod that is dropped is left to the next call of its identity.
    outlives_call: bool,
}

/// What one request to create a pod came to.
enum Creation {
    Created(Box<k8s::Pod>),
    /// The namespace accepts restricted pods only.
    DemandsRestricted,
    /// There is a pod of this name.
    Exists(RequestError),
    /// It was refused, but an earlier try that got no answer may have created the pod. That pod itself may be the
    /// reason: it uses up the quota.
    MayExist(RequestError),
    Refused(RequestError),
}

/// What was found under the name of a pod.
enum Occupant {
    Nobody,
    /// A pod of this call's identity.
    Ours(Box<k8s::Pod>),
    /// A pod of this call's identity that is being deleted.
    OursLeaving,
    Stranger,
}

impl KubePod {
    fn new(inner: Arc<Inner>, spec: &PodSpec, identity: Identity, claim: Claim, wait_until: Instant) -> Self {
        // Before the pod is created, so that none of its events is missed.
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

    fn explain(&self, error: RequestError, verb: &'static str, resource: &'static str) -> Error {
        self.inner.server.explain(error, &Action { verb, resource, namespace: self.namespace.clone() })
    }

    async fn create(&mut self, spec: &PodSpec) -> Result<(), Error> {
        let created = self.create_with_files(spec).await;
        // A request is made again only after these outcomes. After any other, nobody would find the pod.
        let is_tried_again = matches!(created, Ok(()) | Err(Error::Unavailable(_)));
        self.outlives_call = self.identity.outlives_call && is_tried_again;
        created
    }

    async fn create_with_files(&mut self, spec: &PodSpec) -> Result<(), Error> {
        let mut files = manifest::ConfigMaps::plan(&self.identity.name, &spec.input_files)?;
        let pod = self.create_pod(spec, &files).await?;
        let uid = pod.uid().ok_or_else(|| Error::Other("the API server gave the pod no uid".into()))?;
        self.uid = Some(uid.clone());
        files.rename(&pod);
        self.subscription.identify(&pod);

        // After the pod, because they belong to it. The node waits for them.
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
            Err(error) if error.is("AlreadyExists") => Ok(()),
            Err(error) => Err(self.explain(error, "create", "configmaps")),
        }
    }

    /// Creates the pod, or adopts the pod of its identity that exists: an earlier call made it, or an earlier try whose
    /// answer was lost. A pod that is being deleted is waited for and created anew.
    async fn create_pod(&mut self, spec: &PodSpec, files: &manifest::ConfigMaps<'_>) -> Result<k8s::Pod, Error> {
        let deadline = Instant::now() + DELETION;
        loop {
            // From here on, the request may have its effect whether its answer is heard or not.
            self.is_left = !spec.keep;
            let error = match self.try_create(spec, files).await {
                Creation::Created(pod) => return Ok(*pod),
                Creation::DemandsRestricted => {
                    self.inner.restricted().insert(self.namespace.clone(), Instant::now());
                    continue;
                }
                Creation::Refused(error) => {
                    self.is_left = !spec.keep && error.may_have_arrived;
                    return Err(self.explain(error, "create", "pods"));
                }
                Creation::Exists(error) | Creation::MayExist(error) => error,
            };
            // A pod that may be another's is not deleted.
            self.is_left = !spec.keep && error.may_have_arrived;
            let name = &self.identity.name;
            match self.occupant().await? {
                Occupant::Ours(pod) => {
                    // A random identity is this call's alone, so this call created the pod.
                    self.is_adopted = self.identity.outlives_call;
                    self.is_left = !spec.keep;
                    return Ok(*pod);
                }
                Occupant::Stranger => {
                    self.is_left = false;
                    let what = format!("a pod named {name} that does not belong to this call is in the way; delete it");
                    return Err(Error::Other(what));
                }
                Occupant::OursLeaving if Instant::now() > deadline => {
                    let what = format!("the pod {name} of an earlier try is still being deleted");
                    return Err(Error::Unavailable(what));
                }
                Occupant::Nobody if !error.is("AlreadyExists") => return Err(self.explain(error, "create", "pods")),
                Occupant::OursLeaving | Occupant::Nobody => tokio::time::sleep(DELETION_PAUSE).await,
            }
        }
    }

    async fn try_create(&self, spec: &PodSpec, files: &manifest::ConfigMaps<'_>) -> Creation {
        let (pods, params) = (self.pods(), PostParams::default());
        let standard = self.inner.standard(&self.namespace);
        let manifest = manifest::pod(&self.identity, spec, files, &self.inner.options, standard);
        match self.inner.server.request(|| pods.create(&params, &manifest)).await {
            Ok(pod) => Creation::Created(Box::new(pod)),
            Err(error) if standard == Standard::Baseline && error.demands_restricted_pod() => {
                Creation::DemandsRestricted
            }
            Err(error) if error.is("AlreadyExists") => Creation::Exists(error),
            Err(error) if error.may_have_arrived && !error.may_pass() => Creation::MayExist(error),
            Err(error) => Creation::Refused(error),
        }
    }

    /// Looks which pod has this pod's name.
    async fn occupant(&self) -> Result<Occupant, Error> {
        let pods = self.pods();
        let found = self.inner.server.request(|| pods.get_opt(&self.identity.name)).await;
        Ok(match found.map_err(|error| self.explain(error, "get", "pods"))? {
            None => Occupant::Nobody,
            Some(pod) if !manifest::is_of(&pod, &self.identity) => Occupant::Stranger,
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => Occupant::OursLeaving,
            Some(pod) => Occupant::Ours(Box::new(pod)),
        })
    }

    fn delete_params(&self) -> DeleteParams {
        delete_params(self.uid.clone(), if self.subscription.has_ended() { GRACE_ENDED } else { GRACE_RUNNING })
    }
}

impl Inner {
    fn restricted(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.restricted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The standard that pods of a namespace have to meet, as far as is known.
    fn standard(&self, namespace: &str) -> Standard {
        match self.restricted().get(namespace) {
            Some(learned) if learned.elapsed() < RESTRICTED => Standard::Restricted,
            _ => Standard::Baseline,
        }
    }

    /// Waits until a pod may be created. A pod that exists already does not wait: others may be waiting for its room.
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
        let selector = manifest::selector(labels);
        let action = |namespace| Action { verb: "list", resource: "pods", namespace };
        match self.find_in(Api::all(self.client.clone()), &selector).await {
            Ok(found) => Ok(found),
            Err(error) if error.is("Forbidden") => {
                let mut found = vec![];
                for namespace in self.watch.namespaces() {
                    let pods = Api::namespaced(self.client.clone(), &namespace);
                    let listed = self.find_in(pods, &selector).await;
                    found.extend(listed.map_err(|error| self.server.explain(error, &action(namespace)))?);
                }
                Ok(found)
            }
            Err(error) => Err(self.server.explain(error, &action(String::new()))),
        }
    }

    async fn find_in(&self, pods: Api<k8s::Pod>, selector: &str) -> Result<Vec<FoundPod>, RequestError> {
        let (mut found, mut pages) = (vec![], Pages::of(selector));
        while let Some(params) = pages.request() {
            let answer = self.server.request(|| pods.list(&params)).await;
            let Some(page) = pages.accept(answer)? else { continue };
            let staying = page.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            found.extend(staying.filter_map(found_pod));
        }
        Ok(found)
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

async fn delete(inner: &Inner, pods: &Api<k8s::Pod>, name: &str, params: &DeleteParams) -> Result<(), RequestError> {
    match inner.server.request(|| pods.delete(name, params)).await {
        Ok(_) => Ok(()),
        // Somebody else has deleted it, or another pod has its name by now.
        Err(error) if error.is("NotFound") || error.is("Conflict") => Ok(()),
        Err(error) => Err(error),
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
            // Nobody relies on the API server to keep to the limit.
            let mut stream = pods.log_stream(&self.identity.name, &params).await?.take(MOST_LOG_BYTES as u64);
            stream.read_to_end(&mut log).await.map_err(kube::Error::ReadEvents)?;
            // A log need not be UTF-8.
            Ok(String::from_utf8_lossy(&log).into_owned())
        };
        self.inner.server.request(read).await.map_err(|error| self.explain(error, "get", "pods/log"))
    }

    async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error> {
        let params = LogParams { container: Some(manifest::MAIN.into()), follow: true, ..LogParams::default() };
        let pods = self.pods();
        let log = self.inner.server.request(|| pods.log_stream(&self.identity.name, &params)).await;
        Ok(Box::pin(log.map_err(|error| self.explain(error, "get", "pods/log"))?.compat()))
    }

    async fn delete(&mut self) -> Result<(), Error> {
        if !self.is_left {
            return Ok(());
        }
        self.subscription.expect_deletion();
        delete(&self.inner, &self.pods(), &self.identity.name, &self.delete_params())
            .await
            .map_err(|error| self.explain(error, "delete", "pods"))?;
        self.is_left = false;
        Ok(())
    }
}

impl Drop for KubePod {
    fn drop(&mut self) {
        if !self.is_left || self.outlives_call {
            return;
        }
        self.subscription.expect_deletion();
        let (inner, pods, params) = (self.inner.clone(), self.pods(), self.delete_params());
        let name = self.identity.name.clone();
        // A pod that may not even exist is not worth so long a wait.
        let patience = if self.uid.is_some() { OUTAGE } else { Duration::ZERO };
        let deletion = async move {
            let start = Instant::now();
            while let Err(error) = delete(&inner, &pods, &name, &params).await {
                let may_pass = error.may_pass() || error.has_code(401);
                if !may_pass || start.elapsed() >= patience {
                    tracing::warn!(pod = name, %error, "pod not deleted; its own deadline will end it");
                    break;
                }
                tokio::time::sleep(REST).await;
            }
        };
        self.inner.tasks.spawn_on(deletion, &self.inner.runtime);
    }
}
