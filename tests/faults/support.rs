//! A cluster in this process: its API server, its objects, its pods, and a clock that runs fast.

pub mod forward;
pub mod harness;
pub mod kubelet;
pub mod server;
pub mod store;
