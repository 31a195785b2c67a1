//! The WebAssembly engine, and what one call may use of it.

use std::time::Duration;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store, StoreLimits,
    StoreLimitsBuilder, UpdateDeadline,
};

/// How often CPU time is looked at.
const TICK: Duration = Duration::from_millis(10);

/// What a component may be made of: the code itself, and what connects it with its imports.
const CORE_INSTANCES: u32 = 4;
const TABLES: u32 = 2;

/// What one call may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Calls at the same time. Address space is set aside for each, memory is not.
    pub calls: u32,
    /// The guest's memory, in bytes. A result of 8 MiB that JSON has to escape throughout takes 60 MiB.
    pub memory: usize,
    /// Pods that a call may ask for, one after another or at once.
    pub pods: usize,
    /// How often a call may ask something of its pods. Backends are asked in turn, some of them over the network.
    pub pod_calls: u32,
    /// Bytes that a call may exchange with its pods in all: input files, results, logs.
    pub pod_bytes: usize,
    /// Bytes that a single host call, or the result, may copy out of the guest. As results go, 8 MiB that JSON has to
    /// escape throughout take 48 MiB.
    pub copied_bytes: usize,
    /// The guest's own computing time. Time in which it waits for a pod does not count.
    pub cpu_time: Duration,
    /// The whole of a call, with all its waiting.
    pub time: Duration,
}

impl Default for Limits {
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

/// Starts an engine, and the thread that measures its guests' time for as long as it lives.
pub(super) fn start(limits: &Limits) -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    // A component that could take more than its share would leave less for the other calls of it.
    pool.total_component_instances(limits.calls)
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_core_instances(limits.calls.saturating_mul(CORE_INSTANCES))
        .max_memories_per_component(1)
        .total_memories(limits.calls)
        .max_tables_per_component(TABLES)
        .total_tables(limits.calls.saturating_mul(TABLES))
        .total_stacks(limits.calls)
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
/// Ticks are wall clock, so a guest that waited meets one when it goes on, whatever the time it waited for.
pub(super) fn limit_cpu_time<T: 'static>(store: &mut Store<T>, limit: Duration) {
    let mut left = limit.as_millis() / TICK.as_millis();
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        left = left.saturating_sub(1);
        Ok(if left == 0 { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
    });
}
