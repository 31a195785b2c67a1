//! The WebAssembly runtime that plugins share, and what one call may use of it.

use super::{LoadError, Plugin, State, cache, hex, inspect};
use crate::bindings::K8sAppPre;
use crate::imports::{clocks, pods};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};
use wasmtime::component::{Component, Linker};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreLimits, StoreLimitsBuilder,
    UpdateDeadline,
};

/// How often CPU time is checked.
const TICK: Duration = Duration::from_millis(10);

/// Instances for questions that take no time (`describe`, `check`), so that they never wait for calls.
const QUESTIONS: u32 = 8;

/// What a component may be made of: the code itself, and what connects it with its imports.
const CORE_INSTANCES: u32 = 4;
const TABLES: u32 = 2;

/// What one call may use, and how many calls there may be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Calls at the same time, of all plugins of a [`Runtime`]. One more waits until another ends. Address space is
    /// reserved for each, memory is not.
    pub calls: u32,
    /// The guest's memory, in bytes. A result of 8 MiB in which JSON escapes every character takes 60 MiB.
    pub memory: usize,
    /// Pods that a call may ask for, one after another or at once.
    pub pods: usize,
    /// How often a call may ask something of its pods. Each question may be a request over the network.
    pub pod_calls: u32,
    /// Bytes that a call may exchange with its pods in all: input files, results, logs.
    pub pod_bytes: usize,
    /// Bytes that a single host call, or the result, may copy out of the guest. A result of 8 MiB in which JSON escapes
    /// every character takes 48 MiB.
    pub copied_bytes: usize,
    /// The guest's own computing time. Time in which it waits for a pod does not count.
    pub cpu_time: Duration,
    /// The whole of a call, with the time that it waits for its pod.
    pub time: Duration,
}

impl Default for Limits {
    /// 1,000 calls, each with 128 MiB of memory, 4 pods, 10,000 questions, 128 MiB exchanged, 64 MiB copied at once, 10 s
    /// of CPU time and 7 days in all.
    fn default() -> Self {
        Limits {
            calls: 1000,
            memory: 128 << 20,
            pods: 4,
            pod_calls: 10_000,
            pod_bytes: 128 << 20,
            copied_bytes: 64 << 20,
            cpu_time: Duration::from_secs(10),
            time: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

impl Limits {
    pub(super) fn of_store(&self) -> StoreLimits {
        StoreLimitsBuilder::new().memory_size(self.memory).trap_on_grow_failure(true).build()
    }
}

/// A WebAssembly runtime. Plugins that are loaded by one share its limits. Cloning it shares it.
#[derive(Clone)]
pub struct Runtime {
    engine: Engine,
    linker: Linker<State>,
    cache: Option<PathBuf>,
    pub(super) limits: Arc<Limits>,
    pub(super) calls: Arc<Semaphore>,
    pub(super) questions: Arc<Semaphore>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("limits", &self.limits).field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Starts a runtime.
    ///
    /// # Errors
    /// This machine cannot run WebAssembly within these limits.
    pub fn new(limits: Limits) -> Result<Self, LoadError> {
        let engine = start(&limits).map_err(LoadError::Runtime)?;
        let mut linker = Linker::new(&engine);
        clocks::add_to_linker(&mut linker).map_err(LoadError::Runtime)?;
        pods::add_to_linker(&mut linker).map_err(LoadError::Runtime)?;
        let permits = |count: u32| usize::try_from(count).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Ok(Runtime {
            engine,
            linker,
            cache: None,
            calls: Arc::new(Semaphore::new(permits(limits.calls))),
            questions: Arc::new(Semaphore::new(permits(QUESTIONS))),
            limits: limits.into(),
        })
    }

    /// Keeps compiled components in this directory. It must be private to the user, because code in it is run.
    #[must_use]
    pub fn cache(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache = Some(dir.into());
        self
    }

    /// Checks and compiles a component.
    ///
    /// # Errors
    /// It is not a plugin that this host can run.
    pub fn load(&self, component: &[u8]) -> Result<Plugin, LoadError> {
        if !component.starts_with(b"\0asm") {
            return Err(LoadError::Invalid(wasmtime::Error::msg("these bytes are not WebAssembly")));
        }
        let sha256 = hex(&Sha256::digest(component));
        let compiled = match &self.cache {
            Some(dir) => cache::load(&self.engine, dir, component, &sha256),
            None => Component::new(&self.engine, component),
        }
        .map_err(LoadError::Invalid)?;
        let inspection = inspect(&self.engine, &compiled, component.len(), sha256);
        inspection.check_imports()?;
        let pre = self.linker.instantiate_pre(&compiled).and_then(K8sAppPre::new).map_err(LoadError::Incompatible)?;
        Ok(Plugin { runtime: self.clone(), pre, inspection, description: OnceCell::new() })
    }

    pub(super) fn store(&self, state: State) -> Store<State> {
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(self.limits.copied_bytes);
        limit_cpu_time(&mut store, self.limits.cpu_time);
        store
    }
}

/// Starts an engine, and the thread that measures its guests' time for as long as it lives.
fn start(limits: &Limits) -> wasmtime::Result<Engine> {
    let instances = limits.calls.saturating_add(QUESTIONS);
    let mut pool = PoolingAllocationConfig::default();
    // A component that could take more than its share would leave less for other calls.
    pool.total_component_instances(instances)
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .max_memories_per_component(1)
        .total_memories(instances)
        .max_tables_per_component(TABLES)
        .total_tables(instances.saturating_mul(TABLES))
        .total_stacks(instances)
        .max_memory_size(limits.memory);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        // Copying the few initial pages costs less than the memory maps of copy-on-write, of which Linux allows
        // a process 65,530.
        .memory_init_cow(false)
        .concurrency_support(false)
        .epoch_interruption(true);
    let engine = Engine::new(&config)?;

    let weak = engine.weak();
    std::thread::Builder::new().name("hops-ticks".into()).spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    })?;
    Ok(engine)
}

/// Ends the guest when it has computed for `limit`, and lets other tasks run in between.
///
/// Ticks are wall clock, so a guest that has waited meets one tick when it goes on, however long it waited.
fn limit_cpu_time(store: &mut Store<State>, limit: Duration) {
    let mut left = limit.as_millis() / TICK.as_millis();
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        left = left.saturating_sub(1);
        Ok(if left == 0 { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
    });
}
