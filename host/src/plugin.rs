//! Loading a plugin, and calling it: an instance for each call, with limits of its own.

mod cache;
mod engine;

pub use engine::Limits;

use crate::bindings::{K8sAppPre, exports::hiphops::app::app};
use crate::clocks::{self, ClocksCtx, ClocksView};
use crate::event::Events;
use crate::pods::{self, Identity, NoPods, Pods, PodsCtx, PodsCtxView, PodsView, Retained};
use crate::policy::{InFlight, Policy};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store, StoreLimits, Trap};

pub use crate::bindings::exports::hiphops::app::app::{Description, Handler, Problem};

/// The plugin that was built with this library.
pub const EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/k8s.wasm"));

/// The interfaces that a plugin may import.
pub const GRANTED: [&str; 3] = ["hiphops:k8s/pods", "wasi:clocks/wall-clock", "wasi:clocks/monotonic-clock"];

/// Why a component is not a plugin that this host can run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are not a valid component.
    #[error("the plugin is not a WebAssembly component: {0:#}")]
    Invalid(#[source] wasmtime::Error),
    /// The component wants more than hosts give.
    #[error("the plugin imports {}, which this host does not grant; it grants {}", .0.join(", "), GRANTED.join(", "))]
    NotGranted(Vec<String>),
    /// The component was built against another contract.
    #[error("the plugin was built against another version of hiphops:k8s than this host: {0:#}")]
    Incompatible(#[source] wasmtime::Error),
    /// This machine cannot run WebAssembly as configured.
    #[error("the WebAssembly engine does not start: {0:#}")]
    Engine(#[source] wasmtime::Error),
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The plugin has no such handler; the sentence names those it has.
    #[error("{0}")]
    UnknownHandler(String),
    /// The plugin itself computed for longer than its limit.
    #[error("the plugin used up its CPU time; this is a defect of the plugin, not of the call's container")]
    CpuTime,
    /// The call as a whole took longer than this limit.
    #[error("the call took longer than {}, which is the most on this host; split its work, or raise the limit", humantime::format_duration(*.0))]
    Time(Duration),
    /// The plugin ended abnormally; the limits of memory, of the use of pods and of what is copied show up here too.
    // The backtrace is for those who look at the source.
    #[error("the plugin failed: {}; this is a defect of the plugin, not of the call's container", .0.root_cause())]
    Trapped(#[source] wasmtime::Error),
    /// What the plugin itself says.
    #[error("{0}")]
    Other(String),
}

/// What a component exports and imports, by full name, and what it is.
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

/// How to load a plugin.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    limits: Limits,
    cache: Option<PathBuf>,
}

impl Loader {
    /// Sets the limits of each call.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Keeps compiled components in this directory, which must be private to the user: code in it is run.
    #[must_use]
    pub fn cache(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache = Some(dir.into());
        self
    }

    /// Checks and compiles a component.
    ///
    /// # Errors
    /// It is not a plugin that this host can run.
    pub fn load(self, component: &[u8]) -> Result<Plugin, LoadError> {
        if !component.starts_with(b"\0asm") {
            return Err(LoadError::Invalid(wasmtime::Error::msg("these bytes are no WebAssembly")));
        }
        let engine = engine::start(&self.limits).map_err(LoadError::Engine)?;
        let sha256 = hex(&Sha256::digest(component));
        let compiled = match &self.cache {
            Some(dir) => cache::load(&engine, dir, component, &sha256),
            None => Component::new(&engine, component),
        }
        .map_err(LoadError::Invalid)?;

        let inspection = inspect(&engine, &compiled, component.len(), sha256);
        let is_granted = |import: &String| GRANTED.contains(&import.split('@').next().unwrap_or_default());
        let not_granted: Vec<String> =
            inspection.imports.iter().filter(|import| !is_granted(import)).cloned().collect();
        if !not_granted.is_empty() {
            return Err(LoadError::NotGranted(not_granted));
        }

        let mut linker = Linker::new(&engine);
        clocks::add_to_linker(&mut linker).map_err(LoadError::Engine)?;
        pods::add_to_linker(&mut linker).map_err(LoadError::Engine)?;
        let pre = linker.instantiate_pre(&compiled).and_then(K8sAppPre::new).map_err(LoadError::Incompatible)?;
        Ok(Plugin { engine, pre, limits: self.limits, inspection, description: OnceCell::new() })
    }
}

/// A plugin, ready to be called. Calls run side by side and see nothing of one another.
pub struct Plugin {
    engine: Engine,
    pre: K8sAppPre<State>,
    limits: Limits,
    inspection: Inspection,
    description: OnceCell<Description>,
}

/// What a call is given.
pub struct CallCtx {
    pods: PodsCtx,
    clocks: ClocksCtx,
}

impl CallCtx {
    /// A call with pods of `backend` within `policy`.
    pub fn new(backend: Arc<dyn Pods>, policy: Arc<Policy>) -> Self {
        CallCtx { pods: PodsCtx::new(backend, policy), clocks: ClocksCtx::default() }
    }

    /// Counts the call's pods among these.
    #[must_use]
    pub(crate) fn in_flight(mut self, in_flight: Arc<InFlight>) -> Self {
        self.pods = self.pods.in_flight(in_flight);
        self
    }

    /// Tells of what happens.
    #[must_use]
    pub fn events(mut self, events: Events) -> Self {
        self.pods = self.pods.events(events);
        self
    }

    /// Gives the call's pod this identity, so that a call that is made again finds it.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.pods = self.pods.identity(identity);
        self
    }

    /// Puts the call's pod there when the call is done with it, instead of deleting it.
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
    /// Loads a component with default limits and no cache.
    ///
    /// # Errors
    /// It is not a plugin that this host can run.
    pub fn load(component: &[u8]) -> Result<Self, LoadError> {
        Loader::default().load(component)
    }

    /// What the component exports and imports.
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// Who the app is and what it can do. It is asked once.
    ///
    /// # Errors
    /// The plugin failed.
    pub async fn describe(&self) -> Result<&Description, CallError> {
        let describe = async || {
            let mut store = self.store(idle());
            let app = self.pre.instantiate_async(&mut store).await?;
            app.hiphops_app_app().call_describe(&mut store).await
        };
        self.description.get_or_try_init(describe).await.map_err(failure)
    }

    /// All that is wrong in a call's inputs; nothing is run.
    ///
    /// # Errors
    /// There is no such handler, or the plugin failed.
    pub async fn check(&self, handler: &str, inputs: &str) -> Result<Vec<Problem>, CallError> {
        let mut store = self.store(idle());
        let app = self.pre.instantiate_async(&mut store).await.map_err(failure)?;
        app.hiphops_app_app().call_check(&mut store, handler, inputs).await.map_err(failure)?.map_err(CallError::from)
    }

    /// Runs a call and returns its result document. Dropping the future cancels the call and deletes its pod.
    ///
    /// # Errors
    /// There is no such handler, or the plugin failed. A container that fails is no error here: its document says so.
    pub async fn call(&self, ctx: CallCtx, handler: &str, inputs: &str) -> Result<String, CallError> {
        let called = async {
            let mut store = self.store(ctx);
            let app = self.pre.instantiate_async(&mut store).await?;
            app.hiphops_app_app().call_call(&mut store, handler, inputs).await
        };
        match tokio::time::timeout(self.limits.time, called).await {
            Ok(called) => called.map_err(failure)?.map_err(CallError::from),
            Err(_) => Err(CallError::Time(self.limits.time)),
        }
    }

    fn store(&self, ctx: CallCtx) -> Store<State> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(self.limits.pods);
        let state = State {
            pods: ctx.pods.budget(self.limits.pod_calls, self.limits.pod_bytes),
            clocks: ctx.clocks,
            table,
            limits: self.limits.of_store(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(self.limits.copied_bytes);
        engine::limit_cpu_time(&mut store, self.limits.cpu_time);
        store
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
    let names = |items: &mut dyn Iterator<Item = (&str, wasmtime::component::types::ComponentExtern)>| {
        items.filter(|(_, item)| !matches!(item.ty, ComponentItem::Type(_))).map(|(name, _)| name.to_owned()).collect()
    };
    Inspection { exports: names(&mut ty.exports(engine)), imports: names(&mut ty.imports(engine)), size, sha256 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
