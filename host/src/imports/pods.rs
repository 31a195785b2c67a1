//! The interface `pods` over a backend: the policy before it, events beside it.

use super::contract;
use crate::bindings::hiphops::k8s::pods as wit;
use crate::error::{Error, Excess, Refusal, Rule, TrappableError};
use crate::event::{Event, Events};
use crate::pods::{ContainerState, Identity, MOST_LOG_BYTES, Pod, PodSpec, PodStatus, Pods};
use crate::policy::{Policy, Slot};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

/// How long a pod is kept for the rest of its log to arrive.
const LOG_GRACE: Duration = Duration::from_secs(2);

/// What the host functions need for one call.
pub struct PodsCtx {
    backend: Arc<dyn Pods>,
    policy: Arc<Policy>,
    events: Events,
    identity: Option<Identity>,
    retained: Option<Retained>,
    /// How many pods the call has asked for. The table has places for as many.
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
            events: Events::default(),
            identity: None,
            retained: None,
            asked: 0,
            calls_left: u32::MAX,
            bytes_left: usize::MAX,
        }
    }

    /// Ends the guest when it has used the interface for more than this many calls or bytes in all.
    #[must_use]
    pub fn budget(mut self, calls: u32, bytes: usize) -> Self {
        (self.calls_left, self.bytes_left) = (calls, bytes);
        self
    }

    /// Sends what happens in the call to these events.
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

    /// Keeps the pods that the call is done with in `retained`, instead of deleting them.
    #[must_use]
    pub fn retain(mut self, retained: Retained) -> Self {
        self.retained = Some(retained);
        self
    }

    fn count_call(&mut self) -> wasmtime::Result<()> {
        let left = self.calls_left.checked_sub(1);
        self.calls_left = left.ok_or_else(|| wasmtime::Error::msg("it asked more of its pods than any call needs"))?;
        Ok(())
    }

    fn count_bytes(&mut self, bytes: usize) -> wasmtime::Result<()> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left =
            left.ok_or_else(|| wasmtime::Error::msg("it exchanged more bytes with its pods than any call needs"))?;
        Ok(())
    }
}

impl fmt::Debug for PodsCtx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodsCtx")
            .field("policy", &self.policy)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// The pods of calls that have ended, for as long as whoever made the calls needs them.
#[derive(Clone, Default)]
pub struct Retained(Arc<Mutex<Vec<Box<dyn Pod>>>>);

impl Retained {
    /// Deletes them.
    ///
    /// # Errors
    /// Why the first of those that could not be deleted still exists.
    pub async fn delete(&self) -> Result<(), Error> {
        let mut deleted = Ok(());
        let pods = std::mem::take(&mut *self.pods());
        for mut pod in pods {
            deleted = deleted.and(pod.delete().await);
        }
        deleted
    }

    fn pods(&self) -> MutexGuard<'_, Vec<Box<dyn Pod>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Retained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pods().iter().map(|pod| pod.name())).finish()
    }
}

/// A view of the parts of an embedder's store data that the host functions use.
pub struct PodsCtxView<'a> {
    /// The call's context.
    pub ctx: &'a mut PodsCtx,
    /// Where the call's handles are.
    pub table: &'a mut ResourceTable,
}

impl fmt::Debug for PodsCtxView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodsCtxView").field("ctx", &self.ctx).finish_non_exhaustive()
    }
}

/// Implemented by an embedder's store data.
pub trait PodsView: Send {
    /// The parts that the host functions use.
    fn pods(&mut self) -> PodsCtxView<'_>;
}

/// Names [`PodsCtxView`] for the linker.
#[derive(Debug)]
pub struct HasPods;

impl HasData for HasPods {
    type Data<'a> = PodsCtxView<'a>;
}

/// Adds the interface `pods` to a linker of the embedder's own.
///
/// # Errors
/// The linker has the interface already.
pub fn add_to_linker<T: PodsView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wit::add_to_linker::<T, HasPods>(linker, T::pods)
}

/// What stands behind a guest's `pod` handle. When it is dropped, by the guest or with the call, the pod is deleted or
/// retained.
struct PodHandle {
    /// `None` only while the handle is dropped.
    pod: Option<Box<dyn Pod>>,
    retained: Option<Retained>,
    last: Option<PodStatus>,
    log: Option<JoinHandle<()>>,
    /// The lifetime that the policy allows, where the call asked for more.
    shortened_to: Option<Duration>,
    _slot: Slot,
}

impl PodHandle {
    fn pod(&mut self) -> wasmtime::Result<&mut (dyn Pod + 'static)> {
        let pod = self.pod.as_deref_mut();
        pod.ok_or_else(|| wasmtime::Error::msg("the handle's pod does not exist any more"))
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

impl PodsCtxView<'_> {
    fn handle(&mut self, pod: &Resource<wit::Pod>) -> wasmtime::Result<&mut PodHandle> {
        Ok(self.table.get_mut(&Resource::new_borrow(pod.rep()))?)
    }
}

impl wit::Host for PodsCtxView<'_> {
    fn convert_error(&mut self, error: TrappableError) -> wasmtime::Result<wit::Error> {
        match error {
            TrappableError::Told(error) => Ok(error.into()),
            TrappableError::Trap(error) => Err(error),
        }
    }
}

impl wit::HostPod for PodsCtxView<'_> {
    async fn create(&mut self, mut spec: PodSpec) -> Result<Resource<wit::Pod>, TrappableError> {
        self.ctx.count_call()?;
        self.ctx.count_bytes(contract::size(&spec))?;
        contract::check(&spec)?;
        self.ctx.policy.check(&spec)?;
        let most = self.table.max_capacity();
        if self.ctx.asked >= most {
            let why = format!("the call asks for more than {most} pods, the most that a call may have");
            return Err(Error::PolicyDenied(why).into());
        }
        self.ctx.asked += 1;
        let longest = Duration::from_millis(spec.lifetime_ms);
        let shortened_to = self.ctx.policy.max_timeout.filter(|most| *most < longest);
        if let Some(most) = shortened_to {
            spec.lifetime_ms = most.as_millis().try_into().unwrap_or(u64::MAX);
        }
        let namespace = spec.namespace.clone();
        let slot = self.ctx.policy.enter(&namespace).await;
        let identity = self.ctx.identity.take().unwrap_or_else(Identity::random);
        let pod = self.ctx.backend.create(spec, identity).await?;
        self.ctx.events.send(|| Event::Created { namespace, pod: pod.name().to_owned() });
        if pod.is_adopted() {
            self.ctx.events.send(|| Event::Adopted);
        }
        let retained = self.ctx.retained.clone();
        let handle = PodHandle { pod: Some(pod), retained, last: None, log: None, shortened_to, _slot: slot };
        Ok(Resource::new_own(self.table.push(handle)?.rep()))
    }

    async fn name(&mut self, pod: Resource<wit::Pod>) -> wasmtime::Result<String> {
        self.ctx.count_call()?;
        Ok(self.handle(&pod)?.pod()?.name().to_owned())
    }

    async fn wait(&mut self, pod: Resource<wit::Pod>, timeout_ms: u64) -> Result<Option<PodStatus>, TrappableError> {
        self.ctx.count_call()?;
        let handle = self.table.get_mut::<PodHandle>(&Resource::new_borrow(pod.rep()))?;
        let (last, shortened_to) = (handle.last.take(), handle.shortened_to);
        let pod = handle.pod()?;
        let next = async {
            loop {
                let mut status = pod.changed().await?;
                if let (Some(most), "DeadlineExceeded") = (shortened_to, &*status.cause.reason) {
                    status.cause.message = ended_by_policy(most);
                }
                if last.as_ref() != Some(&status) {
                    return Ok::<_, Error>(status);
                }
            }
        };
        let Ok(next) = tokio::time::timeout(Duration::from_millis(timeout_ms), next).await else {
            handle.last = last;
            return Ok(None);
        };
        let status = next?;
        handle.last = Some(status.clone());
        if self.ctx.events.wants_logs() && handle.log.is_none() && !matches!(status.main, ContainerState::Waiting(_)) {
            handle.log = follow_logs(handle.pod()?, &self.ctx.events).await;
        }
        self.ctx.events.send(|| Event::Status(status.clone()));
        Ok(Some(status))
    }

    async fn read_file(&mut self, pod: Resource<wit::Pod>, path: String) -> Result<Option<Vec<u8>>, TrappableError> {
        self.ctx.count_call()?;
        self.ctx.count_bytes(path.len())?;
        contract::check_path("the file to read", &path)?;
        let limit = self.ctx.policy.max_result_bytes;
        self.ctx.events.send(|| Event::Reading { path: path.clone() });
        let content = self.handle(&pod)?.pod()?.read_file(&path, limit).await?;
        let size = content.as_ref().map_or(0, Vec::len);
        self.ctx.count_bytes(size)?;
        // A backend that ignores the limit must not break the promise.
        if size as u64 > limit {
            return Err(Error::TooLarge(Excess { size: size as u64, limit }).into());
        }
        Ok(content)
    }

    async fn tail_logs(&mut self, pod: Resource<wit::Pod>, lines: u32) -> Result<String, TrappableError> {
        self.ctx.count_call()?;
        let lines = lines.min(self.ctx.policy.max_log_lines);
        let mut log = self.handle(&pod)?.pod()?.tail_logs(lines).await?;
        let log = log.split_off(log.ceil_char_boundary(log.len().saturating_sub(MOST_LOG_BYTES)));
        self.ctx.count_bytes(log.len())?;
        Ok(log)
    }

    async fn delete(&mut self, pod: Resource<wit::Pod>) -> Result<(), TrappableError> {
        self.ctx.count_call()?;
        let handle = self.table.get_mut::<PodHandle>(&Resource::new_borrow(pod.rep()))?;
        if let Some(log) = &mut handle.log
            && !log.is_finished()
        {
            // Lines that arrive later are lost: the result does not wait for them.
            let _ = tokio::time::timeout(LOG_GRACE, log).await;
        }
        self.ctx.events.send(|| Event::Deleting);
        if handle.retained.is_none() {
            handle.pod()?.delete().await?;
        }
        Ok(())
    }

    async fn drop(&mut self, pod: Resource<wit::Pod>) -> wasmtime::Result<()> {
        self.table.delete::<PodHandle>(Resource::new_own(pod.rep()))?;
        Ok(())
    }
}

impl From<Error> for wit::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::PolicyDenied(why) => wit::Error::PolicyDenied(why),
            Error::Forbidden(Refusal { message, missing }) => {
                let rule = |Rule { verb, resource, namespace }| wit::Rule { verb, resource, namespace };
                wit::Error::Forbidden(wit::Refusal { message, missing: missing.map(rule) })
            }
            Error::QuotaExceeded(why) => wit::Error::QuotaExceeded(why),
            Error::Invalid(why) => wit::Error::Invalid(why),
            Error::Gone(why) => wit::Error::Gone(why),
            Error::TooLarge(Excess { size, limit }) => wit::Error::TooLarge(wit::Excess { size, limit }),
            Error::Unavailable(why) => wit::Error::Unavailable(why),
            Error::Other(why) => wit::Error::Other(why),
        }
    }
}

/// Why a pod was ended. The backend knows that its deadline has passed, and not who set it.
fn ended_by_policy(most: Duration) -> String {
    let most = humantime::format_duration(most);
    format!(
        "the pod was ended after {most}, the longest that this host's policy allows (max-timeout); shorten its work, or \
         raise the limit"
    )
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
