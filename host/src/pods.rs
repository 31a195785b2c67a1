//! The capability `pods`: what a plugin can have run, on whatever is behind it.
//!
//! [`Pods`] is the seam of backends. Each is one folder beside this file.

mod contract;
pub mod engine;
mod host;
mod identity;
pub mod kube;
mod limits;
pub mod memory;
#[cfg(target_os = "linux")]
pub mod process;
pub(crate) mod reference;

pub use crate::bindings::hiphops::k8s::pods::{
    Cause, ContainerState, Error, Excess, File, Phase, PodSpec, PodStatus, Refusal, Rule, Terminated,
};
pub use host::{HasPods, PodHandle, PodsCtx, PodsCtxView, PodsView, Retained, add_to_linker};
pub use identity::Identity;
pub use limits::Quantity;

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::SystemTime;
use tokio::io::AsyncRead;

/// The most of a log's end that is read, in bytes: its lines may be as long as a container likes.
const MOST_LOG_BYTES: usize = 1 << 20;

/// A place where pods run.
#[async_trait]
pub trait Pods: Send + Sync + 'static {
    /// Creates a pod with its input files, and returns without waiting for it to start. Where there is a pod of this
    /// identity already, and this place can find it, that one is it.
    ///
    /// When the future is dropped before it is done, whatever it has created is deleted, unless its identity outlives
    /// the call.
    ///
    /// # Errors
    /// Why there is no pod. Faults that pass by themselves have been retried.
    async fn create(&self, spec: PodSpec, identity: Identity) -> Result<Box<dyn Pod>, Error>;

    /// The pods whose identities have these labels, whoever created them, where this place keeps pods for longer than
    /// its process lives. Not those that their calls asked to keep, nor those that are being deleted.
    ///
    /// # Errors
    /// Why they cannot be listed.
    async fn find(&self, _labels: &BTreeMap<String, String>) -> Result<Vec<FoundPod>, Error> {
        Ok(vec![])
    }

    /// Deletes a pod that was found. That it is gone already is no error.
    ///
    /// # Errors
    /// Why it is still there.
    async fn remove(&self, _pod: &FoundPod) -> Result<(), Error> {
        Ok(())
    }

    /// Returns when the pods that were dropped are deleted. To be called before the process ends.
    async fn drained(&self) {}
}

/// A pod that nobody in this process need know of.
#[derive(Clone, Debug)]
pub struct FoundPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which of all pods that ever had this name it is.
    pub uid: String,
    /// The annotations of its identity, and whatever others it has.
    pub annotations: BTreeMap<String, String>,
    /// When it was created, by the clock of the place where it is.
    pub created: SystemTime,
}

/// A pod of one call. Dropping it deletes it, in the background, unless `keep` was set in its spec or its identity
/// outlives the call.
#[async_trait]
pub trait Pod: Send + Sync {
    /// The pod's name, for messages.
    fn name(&self) -> &str;

    /// Whether an earlier call of the same identity had created it.
    fn is_adopted(&self) -> bool {
        false
    }

    /// The pod's status: at the first call the present one, then the next one that differs. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// The status can no longer be known.
    async fn changed(&mut self) -> Result<PodStatus, Error>;

    /// The bytes of a file below the output directory, or none if it does not exist.
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
    /// Why it is still there. Dropping the pod tries again.
    async fn delete(&mut self) -> Result<(), Error>;
}

/// The status of a pod with which nothing is wrong, and without a container through which files are read.
fn status(phase: Phase, main: ContainerState) -> PodStatus {
    PodStatus {
        phase,
        cause: Cause { reason: String::new(), message: String::new() },
        unschedulable: None,
        waits_for_room: false,
        disruption: None,
        deleted: false,
        main,
        sidecar: None,
    }
}

/// A place without pods, for plugins that are asked about and not run.
#[derive(Debug)]
pub struct NoPods;

#[async_trait]
impl Pods for NoPods {
    async fn create(&self, _: PodSpec, _: Identity) -> Result<Box<dyn Pod>, Error> {
        Err(Error::Other("this host gives out no pods".into()))
    }
}
