//! Pods in a Kubernetes cluster.
//!
//! A call costs at most four requests: the pod, a ConfigMap if there are input files, the result, the deletion. The
//! statuses of all pods come from one watch. ConfigMaps belong to their pod, so deleting it is the whole clean-up.

mod api;
mod connect;
mod fetch;
mod manifest;
mod status;
mod watch;

pub use connect::{ConnectError, KubeOptions};

use super::{Error, Pod, PodSpec, PodStatus, Pods};
use api::{Action, ApiServer, Failure};
use async_trait::async_trait;
use fetch::Route;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1 as k8s;
use kube::api::{Api, DeleteParams, LogParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::AsyncRead;
use tokio::runtime::Handle;
use tokio_util::compat::FuturesAsyncReadCompatExt;
use tokio_util::task::TaskTracker;
use watch::{Subscription, Watch};

/// Seconds that the containers of a pod whose result is read have to end. Zero would not wait for the node's word, and
/// the next pod could meet a node that is still full.
const GRACE_ENDED: u32 = 1;
/// Seconds that a container that is cut off in the middle has to end.
const GRACE_CANCELLED: u32 = 5;
/// ConfigMaps of one pod that are created side by side.
const CONFIG_MAPS_AT_ONCE: usize = 4;

/// A cluster, as a place where pods run.
pub struct KubePods {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    server: Arc<ApiServer>,
    watch: Watch,
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
}

#[async_trait]
impl Pods for KubePods {
    async fn create(&self, spec: PodSpec) -> Result<Box<dyn Pod>, Error> {
        let mut pod = KubePod::new(self.inner.clone(), &spec);
        // In a task of its own: a request that is under way cannot be taken back, so somebody must see it through and
        // delete what came of it.
        let creation = self.inner.tasks.spawn(async move {
            pod.create(&spec).await?;
            Ok(pod)
        });
        match creation.await {
            Ok(Ok(pod)) => Ok(Box::new(pod)),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(Error::Other(format!("the pod's creation was broken off: {error}"))),
        }
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
    name: String,
    uuid: String,
    uid: Option<String>,
    subscription: Subscription,
    /// Whether dropping it has something to delete.
    is_left: bool,
}

impl KubePod {
    fn new(inner: Arc<Inner>, spec: &PodSpec) -> Self {
        let uuid = uuid::Uuid::new_v4();
        let name = format!("hiphops-run-{}", uuid.simple());
        // Before there is a pod, so that no event of it is missed.
        let subscription = inner.watch.subscribe(&spec.namespace, &name);
        KubePod {
            namespace: spec.namespace.clone(),
            name,
            uuid: uuid.to_string(),
            uid: None,
            subscription,
            is_left: false,
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
        let files = manifest::ConfigMaps::plan(&self.name, &spec.input_files)?;
        let manifest = manifest::pod(&self.name, &self.uuid, spec, &files, &self.inner.options);
        self.is_left = !spec.keep;
        let uid = self.create_pod(&manifest).await?;
        self.uid = Some(uid.clone());
        self.subscription.created();

        // After the pod, because they belong to it; the node waits for them.
        let this = &*self;
        futures::stream::iter(files.manifests(&this.uuid, &uid).map(Ok))
            .try_for_each_concurrent(CONFIG_MAPS_AT_ONCE, |manifest| this.create_config_map(manifest))
            .await
    }

    async fn create_config_map(&self, manifest: k8s::ConfigMap) -> Result<(), Error> {
        let config_maps: Api<k8s::ConfigMap> = Api::namespaced(self.inner.client.clone(), &self.namespace);
        let params = PostParams::default();
        match self.inner.server.request(|| config_maps.create(&params, &manifest)).await {
            Ok(_) => Ok(()),
            // The answer to an earlier try was lost.
            Err(failure) if failure.is("AlreadyExists") => Ok(()),
            Err(failure) => Err(self.inner.server.explain(failure, &self.action("create", "configmaps"))),
        }
    }

    /// Creates the pod, or finds that an earlier try of which the answer was lost has created it. Gives its uid.
    async fn create_pod(&mut self, manifest: &k8s::Pod) -> Result<String, Error> {
        let pods = self.pods();
        let params = PostParams::default();
        let created = match self.inner.server.request(|| pods.create(&params, manifest)).await {
            Err(failure) if failure.is("AlreadyExists") => self
                .inner
                .server
                .request(|| pods.get(&self.name))
                .await
                .map_err(|failure| self.inner.server.explain(failure, &self.action("get", "pods")))?,
            Err(failure) => {
                self.is_left &= failure.may_have_arrived();
                return Err(self.inner.server.explain(failure, &self.action("create", "pods")));
            }
            Ok(pod) => pod,
        };
        created.uid().ok_or_else(|| Error::Other("the API server gave the pod no uid".into()))
    }

    fn delete_params(&self) -> DeleteParams {
        let grace = if self.subscription.has_ended() { GRACE_ENDED } else { GRACE_CANCELLED };
        let preconditions = self.uid.clone().map(|uid| Preconditions { uid: Some(uid), resource_version: None });
        DeleteParams { preconditions, ..DeleteParams::default() }.grace_period(grace)
    }
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
        &self.name
    }

    async fn changed(&mut self) -> Result<PodStatus, Error> {
        self.subscription.changed().await
    }

    async fn read_file(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        fetch::file(&self.inner, &self.namespace, &self.name, &self.subscription, path, limit).await
    }

    async fn tail_logs(&mut self, lines: u32) -> Result<String, Error> {
        let params = LogParams {
            container: Some(manifest::MAIN.into()),
            tail_lines: Some(lines.into()),
            ..LogParams::default()
        };
        let pods = self.pods();
        let log = self.inner.server.request(|| pods.logs(&self.name, &params)).await;
        log.map_err(|failure| self.inner.server.explain(failure, &self.action("get", "pods/log")))
    }

    async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error> {
        let params = LogParams { container: Some(manifest::MAIN.into()), follow: true, ..LogParams::default() };
        let pods = self.pods();
        let log = self.inner.server.request(|| pods.log_stream(&self.name, &params)).await;
        let log = log.map_err(|failure| self.inner.server.explain(failure, &self.action("get", "pods/log")))?;
        Ok(Box::pin(log.compat()))
    }

    async fn delete(&mut self) -> Result<(), Error> {
        if !self.is_left {
            return Ok(());
        }
        delete(&self.inner, &self.pods(), &self.name, &self.delete_params())
            .await
            .map_err(|failure| self.inner.server.explain(failure, &self.action("delete", "pods")))?;
        self.is_left = false;
        Ok(())
    }
}

impl Drop for KubePod {
    fn drop(&mut self) {
        if !self.is_left {
            return;
        }
        let (inner, pods, name, params) = (self.inner.clone(), self.pods(), self.name.clone(), self.delete_params());
        let deletion = async move {
            if let Err(failure) = delete(&inner, &pods, &name, &params).await {
                tracing::warn!(pod = name, %failure, "pod not deleted; its own deadline will end it");
            }
        };
        self.inner.tasks.spawn_on(deletion, &self.inner.runtime);
    }
}
