//! Runs the Hiphops Kubernetes app, a sandboxed WebAssembly plugin, with pods of a real cluster.
//!
//! The plugin decides what a call means; this crate acts. [`plugin::Plugin`] loads the component and calls it, an
//! instance for each call; [`pods::Pods`] is the place where its pods run: a cluster ([`pods::kube`]) or a script for
//! tests ([`pods::memory`]).
//!
//! ```
//! use hops_k8s::plugin::{CallCtx, EMBEDDED, Plugin};
//! use hops_k8s::pods::memory::{Memory, Script};
//! use hops_k8s::policy::Policy;
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In earnest: `KubePods::connect(KubeOptions::default()).await?`.
//! let pods = Memory::new(|_| Script::exits(0).file("result.json", r#"{"greeting": "Hello world!"}"#));
//! let plugin = Plugin::load(EMBEDDED)?;
//! let ctx = CallCtx::new(Arc::new(pods), Arc::new(Policy::default()));
//! let result = plugin.call(ctx, "run", r#"{"image": "bash:5"}"#).await?;
//! assert!(result.contains(r#""json":{"greeting": "Hello world!"}"#));
//! # Ok(())
//! # }
//! ```
//!
//! Embedders with a wasmtime store of their own add the imports to their linker with [`pods::add_to_linker`] and
//! [`clocks::add_to_linker`].

pub mod app;
pub mod clocks;
pub mod event;
pub mod http;
pub mod metrics;
pub mod plugin;
pub mod pods;
pub mod policy;
pub mod worker;

mod bindings;
mod document;
