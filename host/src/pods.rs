//! The capability `pods`: what plugins can have run, on whatever stands behind it.
//!
//! A backend implements [`Pods`] and [`Pod`]. Each has a folder beside this file, and none knows another.

#[cfg(any(feature = "engine", feature = "kube"))]
mod causes;
#[cfg(feature = "engine")]
pub mod engine;
mod identity;
#[cfg(feature = "kube")]
pub mod kube;
pub mod memory;
#[cfg(all(feature = "process", target_os = "linux"))]
pub mod process;
mod quantity;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "only engines ask for the registry"))]
pub(crate) mod reference;
#[cfg(any(feature = "engine", feature = "process"))]
mod resources;
mod status;

pub use crate::bindings::hiphops::k8s::pods::{Cause, ContainerState, File, Phase, PodSpec, PodStatus, Terminated};
pub use crate::error::{Error, Excess, Refusal, Rule};
pub use identity::Identity;
pub use quantity::Quantity;

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::SystemTime;
use tokio::io::AsyncRead;

/// The most bytes that are read of a log's end: the container decides how long its lines are.
pub(crate) const MOST_LOG_BYTES: usize = 1 << 20;

/// A backend: something that runs pods.
#[async_trait]
pub trait Pods: Send + Sync + 'static {
    /// Creates a pod with its input files, and returns without waiting for it to start. A backend that can find a pod
    /// of this identity adopts that one instead.
    ///
    /// When the future is dropped before it is done, whatever it has created is deleted, unless the identity outlives
    /// the call.
    ///
    /// # Errors
    /// Why there is no pod. Faults that pass by themselves have been retried.
    async fn create(&self, spec: PodSpec, identity: Identity) -> Result<Box<dyn Pod>, Error>;

    /// The pods with these labels of their identities, whoever created them. Pods that their calls asked to keep, and
    /// pods that are being deleted, are left out. A backend whose pods end with its process has none.
    ///
    /// # Errors
    /// Why they cannot be listed.
    async fn find(&self, _labels: &BTreeMap<String, String>) -> Result<Vec<FoundPod>, Error> {
        Ok(vec![])
    }

    /// Deletes a pod that was found. It is not an error if the pod is gone already.
    ///
    /// # Errors
    /// Why it still exists.
    async fn remove(&self, _pod: &FoundPod) -> Result<(), Error> {
        Ok(())
    }

    /// Waits until the pods that were dropped are deleted. Call it before the process ends.
    async fn drained(&self) {}
}

/// A pod that a backend has found. This process need not have created it.
#[derive(Clone, Debug)]
pub struct FoundPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Tells it from other pods that had the same name before or after.
    pub uid: String,
    /// The annotations of its identity, and whatever others it has.
    pub annotations: BTreeMap<String, String>,
    /// When it was created, by the backend's clock.
    pub created: SystemTime,
}

/// A pod of one call. Dropping it deletes the pod in the background, unless `keep` was set in its spec or its identity
/// outlives the call.
#[async_trait]
pub trait Pod: Send + Sync {
    /// The pod's name, for messages.
    fn name(&self) -> &str;

    /// Whether an earlier call of the same identity created it.
    fn is_adopted(&self) -> bool {
        false
    }

    /// The pod's status: at the first call the present one, then the next one that differs. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// Why the status can no longer be known.
    async fn changed(&mut self) -> Result<PodStatus, Error>;

    /// The bytes of a file below the output directory, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it has more than `limit` bytes; otherwise why it cannot be read.
    async fn read_file(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error>;

    /// The last lines of the user's container's log.
    ///
    /// # Errors
    /// Why it cannot be read.
    async fn tail_logs(&mut self, lines: u32) -> Result<String, Error>;

    /// The log of the user's container from its beginning, until the container ends.
    ///
    /// # Errors
    /// Why it cannot be read.
    async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error>;

    /// Deletes the pod and its input files, unless `keep` was set in its spec.
    ///
    /// # Errors
    /// Why it still exists. Dropping the pod tries again.
    async fn delete(&mut self) -> Result<(), Error>;
}

/// A backend without pods, for plugins that are asked about and not run.
#[derive(Debug)]
pub struct NoPods;

#[async_trait]
impl Pods for NoPods {
    async fn create(&self, _: PodSpec, _: Identity) -> Result<Box<dyn Pod>, Error> {
        Err(Error::Other("this host has no pods".into()))
    }
}
