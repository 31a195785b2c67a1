//! The capability `pods`: what a plugin can have run, on whatever is behind it.
//!
//! [`Pods`] is the seam of backends. Each is one folder beside this file.

mod host;
pub mod kube;
pub mod memory;

pub use crate::bindings::hiphops::k8s::pods::{
    Cause, ContainerState, Error, Excess, File, Phase, PodSpec, PodStatus, Refusal, Rule, Terminated,
};
pub use host::{HasPods, PodHandle, PodsCtx, PodsCtxView, PodsView, add_to_linker};

use async_trait::async_trait;
use std::pin::Pin;
use tokio::io::AsyncRead;

/// A place where pods run.
#[async_trait]
pub trait Pods: Send + Sync + 'static {
    /// Creates a pod with its input files, and returns without waiting for it to start.
    ///
    /// When the future is dropped before it is done, whatever it has created is deleted.
    ///
    /// # Errors
    /// Why there is no pod. Faults that pass by themselves have been retried.
    async fn create(&self, spec: PodSpec) -> Result<Box<dyn Pod>, Error>;

    /// Returns when the pods that were dropped are deleted. To be called before the process ends.
    async fn drained(&self) {}
}

/// A pod of one call. Dropping it deletes it, in the background, unless `keep` was set in its spec.
#[async_trait]
pub trait Pod: Send + Sync {
    /// The pod's name, for messages.
    fn name(&self) -> &str;

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

/// A place without pods, for plugins that are asked about and not run.
#[derive(Debug)]
pub struct NoPods;

#[async_trait]
impl Pods for NoPods {
    async fn create(&self, _: PodSpec) -> Result<Box<dyn Pod>, Error> {
        Err(Error::Other("this host gives out no pods".into()))
    }
}
