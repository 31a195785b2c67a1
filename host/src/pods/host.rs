//! The WIT interface `pods` over a [`Pods`] backend: policy before it, events beside it.

use super::{ContainerState, Error, Excess, Identity, MOST_LOG_BYTES, Pod, PodSpec, PodStatus, Pods, contract};
use crate::bindings::hiphops::k8s::pods;
use crate::event::{Event, Events};
use crate::policy::{InFlight, Place, Policy};
use std::sync::{Arc, Mutex, PoisonError};
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
    in_flight: Arc<InFlight>,
    events: Events,
    identity: Option<Identity>,
    retained: Option<Retained>,
    /// The pods that were asked for, as many as the table has places.
    asked: usize,
    calls_left: u32,
    bytes_left: usize,
}

impl PodsCtx {
    /// Gives a call the pods of `backend`, within `policy`.
    pub fn new(backend: Arc<dyn Pods>, policy: Arc<Policy>) -> Self {
        PodsCtx {
            backend,
            policy,
            in_flight: Arc::default(),
            events: Events::default(),
            identity: None,
            retained: None,
            asked: 0,
            calls_left: u32::MAX,
            bytes_left: usize::MAX,
        }
    }

    /// Counts the call's pods among these.
    #[must_use]
    pub(crate) fn in_flight(mut self, in_flight: Arc<InFlight>) -> Self {
        self.in_flight = in_flight;
        self
    }

    /// Ends the guest when it has used the interface for more than so many calls or bytes in all.
    #[must_use]
    pub fn budget(mut self, calls: u32, bytes: usize) -> Self {
        (self.calls_left, self.bytes_left) = (calls, bytes);
        self
    }

    /// Tells of what happens.
    #[must_use]
    pub fn events(mut self, events: Events) -> Self {
        self.events = events;
        self
    }

    /// Gives the call's first pod this identity. Without one, each pod has its own.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Puts the pods that the call is done with there, instead of deleting them.
    #[must_use]
    pub fn retain(mut self, retained: Retained) -> Self {
        self.retained = Some(retained);
        self
    }

    fn count_call(&mut self) -> Result<()> {
        let left = self.calls_left.checked_sub(1);
        self.calls_left = left.ok_or_else(|| wasmtime::Error::msg("it asked more of its pods than any call needs"))?;
        Ok(())
    }

    fn count_bytes(&mut self, bytes: usize) -> Result<()> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left =
            left.ok_or_else(|| wasmtime::Error::msg("it exchanged more bytes with its pods than any call needs"))?;
        Ok(())
    }
}

/// The pods that a call is done with, until the one who made the call is.
#[derive(Clone, Default)]
pub struct Retained(Arc<Mutex<Vec<Box<dyn Pod>>>>);

impl Retained {
    /// Deletes them.
    ///
    /// # Errors
    /// Why one of them is still there; the others are deleted all the same.
    pub async fn delete(&self) -> Result<(), Error> {
        let mut deleted = Ok(());
        let pods = std::mem::take(&mut *self.pods());
        for mut pod in pods {
            deleted = deleted.and(pod.delete().await);
        }
        deleted
    }

    fn pods(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Pod>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What stands behind a guest's `pod` handle. Dropping it, with the call or by the guest, deletes the pod or has it
/// retained.
pub struct PodHandle {
    /// None only while the handle is dropped.
    pod: Option<Box<dyn Pod>>,
    retained: Option<Retained>,
    last: Option<PodStatus>,
    log: Option<JoinHandle<()>>,
    /// The time that the policy has left it of what it asked for.
    held_to: Option<Duration>,
    _place: Place,
}

impl PodHandle {
    fn pod(&mut self) -> Result<&mut (dyn Pod + 'static)> {
        let pod = self.pod.as_deref_mut();
        pod.ok_or_else(|| wasmtime::Error::msg("the handle's pod is not there any more"))
    }
}

impl Drop for PodHandle {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.abort();
        }
        if let (Some(pod), Some(retained)) = (self.pod.take(), &self.retained) {
            retained.pods().push(pod);
        }
    }
}

impl pods::Host for PodsCtxView<'_> {}

impl pods::HostPod for PodsCtxView<'_> {
    async fn create(&mut self, mut spec: PodSpec) -> Result<Result<Resource<PodHandle>, Error>> {
        self.ctx.count_call()?;
        self.ctx.count_bytes(contract::size(&spec))?;
        if let Err(error) = contract::check(&spec).and_then(|()| self.ctx.policy.check(&spec)) {
            return Ok(Err(error));
        }
        let most = self.table.max_capacity();
        if self.ctx.asked >= most {
            return Ok(Err(Error::PolicyDenied(format!("a call may ask for {most} pods, and this is one more"))));
        }
        self.ctx.asked += 1;
        let longest = Duration::from_millis(spec.lifetime_ms);
        let held_to = self.ctx.policy.max_timeout.filter(|most| *most < longest);
        if let Some(most) = held_to {
            spec.lifetime_ms = most.as_millis().try_into().unwrap_or(u64::MAX);
        }
        let namespace = spec.namespace.clone();
        let place = self.ctx.in_flight.enter(&namespace).await;
        let identity = self.ctx.identity.take().unwrap_or_else(Identity::random);
        match self.ctx.backend.create(spec, identity).await {
            Ok(pod) => {
                self.ctx.events.send(|| Event::Created { namespace, pod: pod.name().to_owned() });
                if pod.is_adopted() {
                    self.ctx.events.send(|| Event::Adopted);
                }
                let retained = self.ctx.retained.clone();
                let handle = PodHandle { pod: Some(pod), retained, last: None, log: None, held_to, _place: place };
                Ok(Ok(self.table.push(handle)?))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn name(&mut self, handle: Resource<PodHandle>) -> Result<String> {
        self.ctx.count_call()?;
        Ok(self.table.get_mut(&handle)?.pod()?.name().to_owned())
    }

    async fn wait(&mut self, handle: Resource<PodHandle>, timeout_ms: u64) -> Result<Result<Option<PodStatus>, Error>> {
        self.ctx.count_call()?;
        let handle = self.table.get_mut(&handle)?;
        let (last, held_to) = (handle.last.take(), handle.held_to);
        let pod = handle.pod()?;
        let next = async {
            loop {
                let mut status = pod.changed().await?;
                if let (Some(most), "DeadlineExceeded") = (held_to, &*status.cause.reason) {
                    status.cause.message = held(most);
                }
                if last.as_ref() != Some(&status) {
                    return Ok(status);
                }
            }
        };
        let status = match tokio::time::timeout(Duration::from_millis(timeout_ms), next).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(_) => {
                handle.last = last;
                return Ok(Ok(None));
            }
        };
        handle.last = Some(status.clone());
        if self.ctx.events.wants_logs() && handle.log.is_none() && !matches!(status.main, ContainerState::Waiting(_)) {
            handle.log = follow_logs(handle.pod()?, &self.ctx.events).await;
        }
        self.ctx.events.send(|| Event::Status(status.clone()));
        Ok(Ok(Some(status)))
    }

    async fn read_file(&mut self, handle: Resource<PodHandle>, path: String) -> Result<Result<Option<Vec<u8>>, Error>> {
        self.ctx.count_call()?;
        self.ctx.count_bytes(path.len())?;
        if let Err(error) = contract::check_path("the file to read", &path) {
            return Ok(Err(error));
        }
        let limit = self.ctx.policy.max_result_bytes;
        self.ctx.events.send(|| Event::Reading { path: path.clone() });
        let content = self.table.get_mut(&handle)?.pod()?.read_file(&path, limit).await;
        if let Ok(Some(bytes)) = &content {
            self.ctx.count_bytes(bytes.len())?;
        }
        Ok(match content {
            // A backend that does not look at the limit must not break the promise.
            Ok(Some(bytes)) if bytes.len() as u64 > limit => {
                Err(Error::TooLarge(Excess { size: bytes.len() as u64, limit }))
            }
            content => content,
        })
    }

    async fn tail_logs(&mut self, handle: Resource<PodHandle>, lines: u32) -> Result<Result<String, Error>> {
        self.ctx.count_call()?;
        let lines = lines.min(self.ctx.policy.max_log_lines);
        let log = self.table.get_mut(&handle)?.pod()?.tail_logs(lines).await;
        let log = log.map(|mut log| {
            let end = log.ceil_char_boundary(log.len().saturating_sub(MOST_LOG_BYTES));
            log.split_off(end)
        });
        self.ctx.count_bytes(log.as_ref().map_or(0, String::len))?;
        Ok(log)
    }

    async fn delete(&mut self, handle: Resource<PodHandle>) -> Result<Result<(), Error>> {
        self.ctx.count_call()?;
        let handle = self.table.get_mut(&handle)?;
        if let Some(log) = &mut handle.log
            && !log.is_finished()
        {
            // What is not here by then is lost; the call's result is not held up for it.
            let _ = tokio::time::timeout(LOG_GRACE, log).await;
        }
        self.ctx.events.send(|| Event::Deleting);
        if handle.retained.is_some() {
            return Ok(Ok(()));
        }
        Ok(handle.pod()?.delete().await)
    }

    async fn drop(&mut self, handle: Resource<PodHandle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

/// Why a pod was ended. Its backend knows that it was, and not who set the time.
fn held(most: Duration) -> String {
    let most = humantime::format_duration(most);
    format!("the pod was ended after {most}, the longest that this host's policy allows (max-timeout); have it do less")
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
