//! Loading a plugin, and calling it: each call in an instance of its own, within limits.

mod cache;
mod registry;
mod runtime;

pub use crate::bindings::exports::hiphops::app::app::{Description, Handler, Problem};
pub use registry::{Plugins, RegisterError};
pub use runtime::{Limits, Runtime};

use crate::bindings::{K8sAppPre, exports::hiphops::app::app};
use crate::document::CallResult;
use crate::event::Events;
use crate::imports::clocks::{ClocksCtx, ClocksView};
use crate::imports::pods::{PodsCtx, PodsCtxView, PodsView, Retained};
use crate::pods::{Identity, NoPods, Pods};
use crate::policy::Policy;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use wasmtime::component::types::{ComponentExtern, ComponentItem};
use wasmtime::component::{Component, ResourceTable};
use wasmtime::{Engine, Store, StoreLimits, Trap};

/// The plugin that was built with this library.
pub const EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/k8s.wasm"));

/// The interfaces that a plugin may import.
pub const GRANTED: [&str; 3] = ["hiphops:k8s/pods", "wasi:clocks/wall-clock", "wasi:clocks/monotonic-clock"];

/// Why a plugin cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are not a valid component.
    #[error("the plugin is not a WebAssembly component: {0:#}")]
    Invalid(#[source] wasmtime::Error),
    /// The component imports more than hosts grant.
    #[error("the plugin imports {}, which this host does not grant; it grants {}", .0.join(", "), GRANTED.join(", "))]
    NotGranted(Vec<String>),
    /// The component was built against another contract.
    #[error("the plugin was built against another version of hiphops:k8s than this host: {0:#}")]
    Incompatible(#[source] wasmtime::Error),
    /// This machine cannot run WebAssembly within these limits.
    #[error("the WebAssembly runtime does not start: {0:#}")]
    Runtime(#[source] wasmtime::Error),
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The plugin has no such handler. The sentence names the handlers that it has.
    #[error("{0}")]
    UnknownHandler(String),
    /// The plugin itself computed for longer than its limit.
    #[error("the plugin used up its CPU time; this is a defect of the plugin, not of the call's container")]
    CpuTime,
    /// The call as a whole took longer than this limit.
    #[error("the call took longer than {}, the limit of this host; split its work, or raise the limit", humantime::format_duration(*.0))]
    Time(Duration),
    /// The plugin ended abnormally. So it does when it exceeds its limits of memory, of questions or of bytes.
    // The backtrace is for those who look at the source.
    #[error("the plugin failed: {}; this is a defect of the plugin, not of the call's container", .0.root_cause())]
    Trapped(#[source] wasmtime::Error),
    /// What the plugin returned, this text, is not a result document.
    #[error("the plugin's result is not a result document; this is a defect of the plugin")]
    NotADocument(String),
    /// What the plugin itself says.
    #[error("{0}")]
    Other(String),
}

/// A component's exports and imports by their full names, its size and its hash.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// The interfaces that it exports.
    pub exports: Vec<String>,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// Its size in bytes.
    pub size: usize,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl Inspection {
    fn check_imports(&self) -> Result<(), LoadError> {
        let is_granted = |import: &String| GRANTED.contains(&import.split('@').next().unwrap_or_default());
        let not_granted: Vec<String> = self.imports.iter().filter(|import| !is_granted(import)).cloned().collect();
        if not_granted.is_empty() { Ok(()) } else { Err(LoadError::NotGranted(not_granted)) }
    }
}

/// A plugin, ready to be called. Calls run side by side and see nothing of one another.
pub struct Plugin {
    runtime: Runtime,
    pre: K8sAppPre<State>,
    inspection: Inspection,
    description: OnceCell<Description>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("inspection", &self.inspection).finish_non_exhaustive()
    }
}

/// What a call is given.
#[derive(Debug)]
pub struct CallCtx {
    pods: PodsCtx,
    clocks: ClocksCtx,
}

impl CallCtx {
    /// A call with pods of `backend` within `policy`.
    pub fn new(backend: Arc<dyn Pods>, policy: Arc<Policy>) -> Self {
        CallCtx { pods: PodsCtx::new(backend, policy), clocks: ClocksCtx::default() }
    }

    /// Sends what happens in the call to these events.
    #[must_use]
    pub fn events(mut self, events: Events) -> Self {
        self.pods = self.pods.events(events);
        self
    }

    /// Gives the call's pod this identity, so that the same call finds it when it is made again.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.pods = self.pods.identity(identity);
        self
    }

    /// Keeps the call's pod in `retained` when the call ends, instead of deleting it.
    #[must_use]
    pub fn retain(mut self, retained: Retained) -> Self {
        self.pods = self.pods.retain(retained);
        self
    }

    /// Uses these clocks.
    #[must_use]
    pub fn clocks(mut self, clocks: ClocksCtx) -> Self {
        self.clocks = clocks;
        self
    }
}

impl Plugin {
    /// Loads a component in a runtime of its own, with default limits and no cache.
    ///
    /// # Errors
    /// It is not a plugin that this host can run.
    pub fn load(component: &[u8]) -> Result<Self, LoadError> {
        Runtime::new(Limits::default())?.load(component)
    }

    /// What the component exports and imports.
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// Who the app is and what it can do. The plugin is asked once.
    ///
    /// # Errors
    /// The plugin failed.
    pub async fn describe(&self) -> Result<&Description, CallError> {
        let describe = async || {
            let _instance = self.runtime.questions.acquire().await;
            let mut store = self.store(idle());
            let app = self.pre.instantiate_async(&mut store).await?;
            app.hiphops_app_app().call_describe(&mut store).await
        };
        self.description.get_or_try_init(describe).await.map_err(failure)
    }

    /// All that is wrong in a call's inputs. Nothing is run.
    ///
    /// # Errors
    /// There is no such handler, or the plugin failed.
    pub async fn check(&self, handler: &str, inputs: &str) -> Result<Vec<Problem>, CallError> {
        let _instance = self.runtime.questions.acquire().await;
        let mut store = self.store(idle());
        let app = self.pre.instantiate_async(&mut store).await.map_err(failure)?;
        app.hiphops_app_app().call_check(&mut store, handler, inputs).await.map_err(failure)?.map_err(CallError::from)
    }

    /// Runs a call and returns its result. Dropping the future cancels the call and deletes its pod.
    ///
    /// While the runtime runs as many calls as its [`Limits`] allow, the call waits for its turn.
    ///
    /// # Errors
    /// There is no such handler, or the plugin failed. A container that fails is not an error here: the document says so.
    pub async fn call(&self, ctx: CallCtx, handler: &str, inputs: &str) -> Result<CallResult, CallError> {
        let _instance = self.runtime.calls.acquire().await;
        let called = async {
            let mut store = self.store(ctx);
            let app = self.pre.instantiate_async(&mut store).await?;
            app.hiphops_app_app().call_call(&mut store, handler, inputs).await
        };
        let time = self.runtime.limits.time;
        let called = tokio::time::timeout(time, called).await.map_err(|_| CallError::Time(time))?;
        let text = called.map_err(failure)??;
        CallResult::parse(text).map_err(CallError::NotADocument)
    }

    fn store(&self, ctx: CallCtx) -> Store<State> {
        let limits = &self.runtime.limits;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.pods);
        self.runtime.store(State {
            pods: ctx.pods.budget(limits.pod_calls, limits.pod_bytes),
            clocks: ctx.clocks,
            table,
            limits: limits.of_store(),
        })
    }
}

/// The context of an instance that is asked about and not run.
fn idle() -> CallCtx {
    CallCtx::new(Arc::new(NoPods), Arc::new(Policy::default()))
}

/// A call's own data.
struct State {
    pods: PodsCtx,
    clocks: ClocksCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

impl PodsView for State {
    fn pods(&mut self) -> PodsCtxView<'_> {
        PodsCtxView { ctx: &mut self.pods, table: &mut self.table }
    }
}

impl ClocksView for State {
    fn clocks(&mut self) -> &mut ClocksCtx {
        &mut self.clocks
    }
}

fn failure(error: wasmtime::Error) -> CallError {
    match error.downcast_ref() {
        Some(Trap::Interrupt) => CallError::CpuTime,
        _ => CallError::Trapped(error),
    }
}

impl From<app::CallError> for CallError {
    fn from(error: app::CallError) -> Self {
        match error {
            app::CallError::UnknownHandler(message) => CallError::UnknownHandler(message),
            app::CallError::Other(message) => CallError::Other(message),
        }
    }
}

fn inspect(engine: &Engine, component: &Component, size: usize, sha256: String) -> Inspection {
    let ty = component.component_type();
    let names = |items: &mut dyn Iterator<Item = (&str, ComponentExtern)>| {
        items.filter(|(_, item)| !matches!(item.ty, ComponentItem::Type(_))).map(|(name, _)| name.to_owned()).collect()
    };
    Inspection { exports: names(&mut ty.exports(engine)), imports: names(&mut ty.imports(engine)), size, sha256 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
