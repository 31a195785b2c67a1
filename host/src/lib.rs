//! Runs the Hiphops Kubernetes app, a sandboxed WebAssembly plugin, with pods of a real cluster.
//!
//! The plugin decides what a call means, and this crate acts. It loads the plugin, gives each call an instance of its
//! own, and gives that instance pods and clocks, within a policy.
//!
//! # A first call
//!
//! [`Plugin`](plugin::Plugin) loads a component and calls it. A backend of [`Pods`](pods::Pods) runs the call's pod: here
//! one that plays a script, in earnest `KubePods::connect(KubeOptions::default()).await?` of [`pods::kube`].
//!
//! ```
//! use hops_k8s::plugin::{CallCtx, EMBEDDED, Plugin};
//! use hops_k8s::pods::Pods;
//! use hops_k8s::pods::memory::{Memory, Script};
//! use hops_k8s::policy::Policy;
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pods = Arc::new(Memory::new(|_| Script::exits(0).file("result.json", r#"{"greeting": "Hello world!"}"#)));
//! let plugin = Plugin::load(EMBEDDED)?;
//! let ctx = CallCtx::new(pods.clone(), Arc::new(Policy::default()));
//! let result = plugin.call(ctx, "run", r#"{"image": "bash:5"}"#).await?;
//!
//! println!("{result}"); // the result document, as the plugin wrote it
//! assert_eq!(result.outcome(), "Completed");
//! let document = result.document(); // and its fields
//! assert_eq!(document.json.unwrap().get(), r#"{"greeting": "Hello world!"}"#);
//!
//! // Pods are deleted in the background. A program that ends waits for that.
//! pods.drained().await;
//! # Ok(())
//! # }
//! ```
//!
//! Dropping the future of a call cancels the call and deletes its pod.
//!
//! # A backend of your own
//!
//! A backend implements [`pods::Pods`] and [`pods::Pod`]. The example `own_backend` runs child processes in 100 lines; this
//! one has pods that end at once with a file:
//!
//! ```
//! use async_trait::async_trait;
//! use hops_k8s::plugin::{CallCtx, EMBEDDED, Plugin};
//! use hops_k8s::pods::{Error, Identity, Pod, PodSpec, PodStatus, Pods};
//! use hops_k8s::policy::Policy;
//! use std::pin::Pin;
//! use std::sync::Arc;
//! use tokio::io::AsyncRead;
//!
//! struct Echo;
//! struct EchoPod(PodSpec);
//!
//! #[async_trait]
//! impl Pods for Echo {
//!     async fn create(&self, spec: PodSpec, _: Identity) -> Result<Box<dyn Pod>, Error> {
//!         Ok(Box::new(EchoPod(spec)))
//!     }
//! }
//!
//! #[async_trait]
//! impl Pod for EchoPod {
//!     fn name(&self) -> &str {
//!         "echo"
//!     }
//!     async fn changed(&mut self) -> Result<PodStatus, Error> {
//!         Ok(PodStatus::exited(0, "Completed", ""))
//!     }
//!     async fn read_file(&mut self, _path: &str, _limit: u64) -> Result<Option<Vec<u8>>, Error> {
//!         Ok(Some(self.0.image.clone().into_bytes()))
//!     }
//!     async fn tail_logs(&mut self, _lines: u32) -> Result<String, Error> {
//!         Ok(String::new())
//!     }
//!     async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error> {
//!         Ok(Box::pin(tokio::io::empty()))
//!     }
//!     async fn delete(&mut self) -> Result<(), Error> {
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let plugin = Plugin::load(EMBEDDED)?;
//! let ctx = CallCtx::new(Arc::new(Echo), Arc::new(Policy::default()));
//! let result = plugin.call(ctx, "run", r#"{"image": "bash:5"}"#).await?;
//! assert_eq!(result.document().body, "bash:5");
//! # Ok(())
//! # }
//! ```
//!
//! # A store of your own
//!
//! Embedders with a wasmtime store of their own add the imports to their linker with [`imports::pods::add_to_linker`] and
//! [`imports::clocks::add_to_linker`], and call the component by [`bindings::K8sApp`]. The [`wasmtime`] that this crate
//! was built with is re-exported.
//!
//! ```
//! use hops_k8s::bindings::K8sApp;
//! use hops_k8s::imports::clocks::{self, ClocksCtx, ClocksView};
//! use hops_k8s::imports::pods::{self, PodsCtx, PodsCtxView, PodsView};
//! use hops_k8s::plugin::EMBEDDED;
//! use hops_k8s::pods::memory::{Memory, Script};
//! use hops_k8s::policy::Policy;
//! use hops_k8s::wasmtime::component::{Component, Linker, ResourceTable};
//! use hops_k8s::wasmtime::{Engine, Result, Store};
//! use std::sync::Arc;
//!
//! struct State {
//!     pods: PodsCtx,
//!     clocks: ClocksCtx,
//!     table: ResourceTable,
//! }
//!
//! impl PodsView for State {
//!     fn pods(&mut self) -> PodsCtxView<'_> {
//!         PodsCtxView { ctx: &mut self.pods, table: &mut self.table }
//!     }
//! }
//!
//! impl ClocksView for State {
//!     fn clocks(&mut self) -> &mut ClocksCtx {
//!         &mut self.clocks
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<()> {
//! let engine = Engine::default();
//! let mut linker = Linker::<State>::new(&engine);
//! pods::add_to_linker(&mut linker)?;
//! clocks::add_to_linker(&mut linker)?;
//!
//! let backend = Memory::new(|_| Script::exits(0).file("result.json", "[1]"));
//! let pods = PodsCtx::new(Arc::new(backend), Arc::new(Policy::default()));
//! let state = State { pods, clocks: ClocksCtx::default(), table: ResourceTable::new() };
//! let mut store = Store::new(&engine, state);
//! let component = Component::new(&engine, EMBEDDED)?;
//! let app = K8sApp::instantiate_async(&mut store, &component, &linker).await?;
//! let document = app.hiphops_app_app().call_call(&mut store, "run", r#"{"image": "bash:5"}"#).await?;
//! assert!(document.unwrap().contains("[1]"));
//! # Ok(())
//! # }
//! ```
//!
//! # Many calls
//!
//! A [`Runner`](runner::Runner) has plugins, pods and a policy for all calls, and a result for each, whatever goes wrong.
//! [`Plugins`](plugin::Plugins) finds a plugin by the name of its app. With the feature `serve`, a worker answers the
//! requests of a hops installation's queue, and a server those of HTTP clients.
//!
//! ```
//! use hops_k8s::plugin::{EMBEDDED, Limits, Plugins, Runtime};
//! use hops_k8s::pods::memory::{Memory, Script};
//! use hops_k8s::policy::Policy;
//! use hops_k8s::runner::Runner;
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let plugin = Arc::new(Runtime::new(Limits::default())?.load(EMBEDDED)?);
//! let pods = Arc::new(Memory::new(|_| Script::exits(0).file("result.json", "[1]")));
//! let runner = Runner::new(Plugins::new([plugin]).await?, pods, Policy::default());
//! let calls = (0..100).map(|_| runner.call(runner.ctx(), "k8s", "run", r#"{"image": "bash:5"}"#));
//! for result in futures::future::join_all(calls).await {
//!     assert_eq!(result.outcome(), "Completed");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! [`Limits`](plugin::Limits) bound what a plugin may use: memory, CPU time, pods and bytes of a call, and the number of
//! calls. Plugins that one [`Runtime`](plugin::Runtime) has loaded share them. A [`Policy`](policy::Policy) bounds what
//! calls may ask for, below the plugin, and how many may have a pod at a time. A call over a number waits for its turn;
//! a call over anything else has an error that says so.
//!
//! ```
//! use hops_k8s::plugin::{CallCtx, EMBEDDED, Limits, Runtime};
//! use hops_k8s::pods::memory::{Memory, Script};
//! use hops_k8s::policy::{Policy, Quantity};
//! use std::num::NonZeroUsize;
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut limits = Limits::default();
//! limits.calls = 10;
//! let plugin = Runtime::new(limits)?.load(EMBEDDED)?;
//!
//! let mut policy = Policy::default();
//! policy.max_memory = Quantity::parse("1Gi");
//! policy.max_calls = NonZeroUsize::new(5);
//! let policy = Arc::new(policy);
//!
//! let pods = Arc::new(Memory::new(|_| Script::exits(0)));
//! let ctx = CallCtx::new(pods, policy);
//! let result = plugin.call(ctx, "run", r#"{"image": "bash:5", "memory": "2Gi"}"#).await?;
//! assert_eq!(result.outcome(), "PolicyDenied");
//! # Ok(())
//! # }
//! ```
//!
//! A container that fails, and inputs that are wrong, are results like any other. [`CallError`](plugin::CallError) is for
//! calls that a plugin has no result for.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `kube` (default) | pods in a Kubernetes cluster |
//! | `engine` | pods as containers of this machine's Docker or Podman |
//! | `process` | pods as sandboxed processes of this machine (Linux) |
//! | `serve` | the worker of a hops queue, the HTTP endpoints, metrics |
//!
//! With `default-features = false`, the crate is for backends of your own.
//!
//! Like every library that uses `k8s-openapi`, this one leaves the version of Kubernetes to the program: depend on
//! `k8s-openapi` with one of its features, such as `latest`.

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

mod error;
mod shared;

#[cfg(feature = "kube")]
pub use kube;
pub use wasmtime;
