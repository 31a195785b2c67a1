//! The WIT interface `pods` over a [`Pods`] backend: policy before it, events beside it.

use super::{ContainerState, Error, Excess, Pod, PodSpec, PodStatus, Pods};
use crate::bindings::hiphops::k8s::pods;
use crate::event::{Event, Events};
use crate::policy::Policy;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use wasmtime::Result;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

/// How long a pod is kept for the rest of its log to arrive.
const LOG_GRACE: Duration = Duration::from_secs(2);

/// What the host functions need for one call.
pub struct PodsCtx {
    backend: Arc<dyn Pods>,
    policy: Arc<Policy>,
    events: Events,
}

impl PodsCtx {
    /// Gives a call the pods of `backend`, within `policy`.
    pub fn new(backend: Arc<dyn Pods>, policy: Arc<Policy>) -> Self {
        PodsCtx { backend, policy, events: Events::default() }
    }

    /// Tells of what happens.
    #[must_use]
    pub fn events(mut self, events: Events) -> Self {
        self.events = events;
        self
    }
}

/// A view of the parts of an embedder's store data that the host functions use.
pub struct PodsCtxView<'a> {
    /// The call's context.
    pub ctx: &'a mut PodsCtx,
    /// Where the call's handles are.
    pub table: &'a mut ResourceTable,
}

/// Implemented by an embedder's store data.
pub trait PodsView: Send {
    /// The parts that the host functions use.
    fn pods(&mut self) -> PodsCtxView<'_>;
}

/// Names [`PodsCtxView`] for the linker.
pub struct HasPods;

impl HasData for HasPods {
    type Data<'a> = PodsCtxView<'a>;
}

/// Adds the interface `pods` to a linker of the embedder's own.
///
/// # Errors
/// The linker has the interface already.
pub fn add_to_linker<T: PodsView + 'static>(linker: &mut Linker<T>) -> Result<()> {
    pods::add_to_linker::<T, HasPods>(linker, T::pods)
}

/// What stands behind a guest's `pod` handle. Dropping it, with the call or by the guest, deletes the pod.
pub struct PodHandle {
    pod: Box<dyn Pod>,
    last: Option<PodStatus>,
    log: Option<JoinHandle<()>>,
}

impl Drop for PodHandle {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.abort();
        }
    }
}

impl pods::Host for PodsCtxView<'_> {}

impl pods::HostPod for PodsCtxView<'_> {
    async fn create(&mut self, spec: PodSpec) -> Result<Result<Resource<PodHandle>, Error>> {
        if let Err(error) = self.ctx.policy.check(&spec) {
            return Ok(Err(error));
        }
        // The place in the table comes first: without one, no pod is made.
        if self.table.iter_mut().count() >= self.table.max_capacity() {
            return Ok(Err(Error::PolicyDenied("a call may not have more pods than this".into())));
        }
        let namespace = spec.namespace.clone();
        match self.ctx.backend.create(spec).await {
            Ok(pod) => {
                self.ctx.events.send(|| Event::Created { namespace, pod: pod.name().to_owned() });
                Ok(Ok(self.table.push(PodHandle { pod, last: None, log: None })?))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn name(&mut self, handle: Resource<PodHandle>) -> Result<String> {
        Ok(self.table.get(&handle)?.pod.name().to_owned())
    }

    async fn wait(&mut self, handle: Resource<PodHandle>, timeout_ms: u64) -> Result<Result<Option<PodStatus>, Error>> {
        let handle = self.table.get_mut(&handle)?;
        let next = async {
            loop {
                let status = handle.pod.changed().await?;
                if handle.last.as_ref() != Some(&status) {
                    return Ok(status);
                }
            }
        };
        let status = match tokio::time::timeout(Duration::from_millis(timeout_ms), next).await {
            Err(_) => return Ok(Ok(None)),
            Ok(Err(error)) => return Ok(Err(error)),
            Ok(Ok(status)) => status,
        };
        handle.last = Some(status.clone());
        if self.ctx.events.wants_logs() && handle.log.is_none() && !matches!(status.main, ContainerState::Waiting(_)) {
            handle.log = follow_logs(&*handle.pod, &self.ctx.events).await;
        }
        self.ctx.events.send(|| Event::Status(status.clone()));
        Ok(Ok(Some(status)))
    }

    async fn read_file(&mut self, handle: Resource<PodHandle>, path: String) -> Result<Result<Option<Vec<u8>>, Error>> {
        let limit = self.ctx.policy.max_result_bytes;
        self.ctx.events.send(|| Event::Reading { path: path.clone() });
        let content = self.table.get_mut(&handle)?.pod.read_file(&path, limit).await;
        Ok(match content {
            // A backend that does not look at the limit must not break the promise.
            Ok(Some(bytes)) if bytes.len() as u64 > limit => {
                Err(Error::TooLarge(Excess { size: bytes.len() as u64, limit }))
            }
            content => content,
        })
    }

    async fn tail_logs(&mut self, handle: Resource<PodHandle>, lines: u32) -> Result<Result<String, Error>> {
        let lines = lines.min(self.ctx.policy.max_log_lines);
        Ok(self.table.get_mut(&handle)?.pod.tail_logs(lines).await)
    }

    async fn delete(&mut self, handle: Resource<PodHandle>) -> Result<Result<(), Error>> {
        let handle = self.table.get_mut(&handle)?;
        if let Some(log) = &mut handle.log {
            // What is not here by then is lost; the call's result is not held up for it.
            let _ = tokio::time::timeout(LOG_GRACE, log).await;
        }
        self.ctx.events.send(|| Event::Deleting);
        Ok(handle.pod.delete().await)
    }

    async fn drop(&mut self, handle: Resource<PodHandle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

async fn follow_logs(pod: &dyn Pod, events: &Events) -> Option<JoinHandle<()>> {
    let events = events.clone();
    let mut log = match pod.follow_logs().await {
        Ok(log) => log,
        Err(error) => {
            events.send(|| Event::Log(format!("(no log: {error})\n").into_bytes()));
            return None;
        }
    };
    Some(tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = log.read(&mut buffer).await {
            let bytes = buffer.get(..read).unwrap_or_default().to_vec();
            events.send(|| Event::Log(bytes));
        }
    }))
}
