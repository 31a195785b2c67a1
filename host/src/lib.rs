//! Runs the Hiphops Kubernetes app, a sandboxed WebAssembly plugin, with pods of a real cluster.

pub mod bindings;
pub mod document;
pub mod event;
pub mod imports;
pub mod plugin;
pub mod pods;
pub mod policy;
pub mod runner;
#[cfg(feature = "serve")]
pub mod serve;

mod shared;

#[cfg(feature = "kube")]
pub use kube;
pub use wasmtime;
