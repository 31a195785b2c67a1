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
//! A call is cancelled by dropping its future, which deletes its pod. Programs that end wait for [`pods::Pods::drained`]
//! first, for pods are deleted in the background.
//!
//! # Limits
//!
//! Each call has its own instance, with limits of memory, CPU time, time and pods: [`plugin::Limits`], which
//! [`plugin::Loader`] takes. What calls may ask for is the [`policy::Policy`]'s. A container that fails, and inputs that are
//! wrong, are results like any other; [`plugin::CallError`] is for what a plugin has no result for.
//!
//! # Pods of your own
//!
//! Another place where pods run is an implementation of [`pods::Pods`] and [`pods::Pod`]: the example `own_backend` has
//! child processes in about 100 lines.
//!
//! # A store of your own
//!
//! Embedders with a wasmtime store of their own add the imports to their linker with [`pods::add_to_linker`] and
//! [`clocks::add_to_linker`], and call the component by [`bindings::K8sApp`]: the example `own_store`.
//!
//! # Many calls
//!
//! [`app::App`] has one plugin, one place for pods and one policy for all calls, and counts them; [`worker::Worker`] answers
//! those that a queue has, and [`http`] those of a socket.

pub mod app;
pub mod bindings;
pub mod clocks;
pub mod event;
pub mod http;
pub mod metrics;
pub mod plugin;
pub mod pods;
pub mod policy;
pub mod worker;

mod document;
mod shared;
