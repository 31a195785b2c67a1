//! The two clock functions of WASI that plugins may import.

use crate::bindings::wasi::clocks::{monotonic_clock, wall_clock};
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use wasmtime::Result;
use wasmtime::component::{HasData, Linker};

/// The clocks of one call. The monotonic one is tokio's, so that tests can pause it.
#[derive(Clone)]
pub struct ClocksCtx {
    start: Instant,
    wall: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl ClocksCtx {
    /// Takes the time of day from `wall` instead of from the system.
    pub fn with_wall_clock(wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        ClocksCtx { start: Instant::now(), wall: Arc::new(wall) }
    }
}

impl fmt::Debug for ClocksCtx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClocksCtx").field("start", &self.start).finish_non_exhaustive()
    }
}

impl Default for ClocksCtx {
    fn default() -> Self {
        Self::with_wall_clock(SystemTime::now)
    }
}

/// Implemented by an embedder's store data.
pub trait ClocksView: Send {
    /// The call's clocks.
    fn clocks(&mut self) -> &mut ClocksCtx;
}

/// Names [`ClocksCtx`] for the linker.
#[derive(Debug)]
pub struct HasClocks;

impl HasData for HasClocks {
    type Data<'a> = &'a mut ClocksCtx;
}

/// Adds the two clock interfaces to a linker of the embedder's own.
///
/// # Errors
/// The linker has one of them already.
pub fn add_to_linker<T: ClocksView + 'static>(linker: &mut Linker<T>) -> Result<()> {
    wall_clock::add_to_linker::<T, HasClocks>(linker, T::clocks)?;
    monotonic_clock::add_to_linker::<T, HasClocks>(linker, T::clocks)
}

impl wall_clock::Host for &mut ClocksCtx {
    async fn now(&mut self) -> Result<wall_clock::Datetime> {
        let since = (self.wall)().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(wall_clock::Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() })
    }
}

impl monotonic_clock::Host for &mut ClocksCtx {
    async fn now(&mut self) -> Result<monotonic_clock::Instant> {
        Ok(self.start.elapsed().as_nanos().try_into().unwrap_or(u64::MAX))
    }
}
