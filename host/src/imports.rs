//! What plugins import: the host's side of the contract, for a wasmtime linker.
//!
//! Whoever uses [`Plugin`](crate::plugin::Plugin) needs none of this. Embedders with a store of their own implement
//! [`pods::PodsView`] and [`clocks::ClocksView`] for its data, and call both `add_to_linker`.

pub mod clocks;
mod contract;
pub mod pods;

pub use crate::error::TrappableError;
