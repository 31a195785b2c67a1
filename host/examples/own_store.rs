//! A wasmtime store of one's own, with other data and imports beside the plugin's.
//!
//!     cargo run --example own_store

use hops_k8s::bindings::K8sApp;
use hops_k8s::imports::clocks::{self, ClocksCtx, ClocksView};
use hops_k8s::imports::pods::{self, PodsCtx, PodsCtxView, PodsView};
use hops_k8s::plugin::EMBEDDED;
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::policy::Policy;
use std::sync::Arc;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, Store, StoreLimits, StoreLimitsBuilder};

struct MyState {
    pods: PodsCtx,
    clocks: ClocksCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

impl PodsView for MyState {
    fn pods(&mut self) -> PodsCtxView<'_> {
        PodsCtxView { ctx: &mut self.pods, table: &mut self.table }
    }
}

impl ClocksView for MyState {
    fn clocks(&mut self) -> &mut ClocksCtx {
        &mut self.clocks
    }
}

#[tokio::main]
async fn main() -> wasmtime::Result<()> {
    let engine = Engine::new(&Config::new())?;
    let component = Component::new(&engine, EMBEDDED)?;
    let mut linker = Linker::<MyState>::new(&engine);
    pods::add_to_linker(&mut linker)?;
    clocks::add_to_linker(&mut linker)?;

    // In earnest: `KubePods::connect(KubeOptions::default()).await?`.
    let backend = Memory::new(|_| Script::exits(0).file("result.json", r#"{"greeting": "Hello world!"}"#));
    let state = MyState {
        pods: PodsCtx::new(Arc::new(backend), Arc::new(Policy::default())),
        clocks: ClocksCtx::default(),
        table: ResourceTable::new(),
        limits: StoreLimitsBuilder::new().memory_size(256 << 20).build(),
    };
    let mut store = Store::new(&engine, state);
    store.limiter(|state| &mut state.limits);
    let app = K8sApp::instantiate_async(&mut store, &component, &linker).await?;
    match app.hiphops_app_app().call_call(&mut store, "run", r#"{"image": "bash:5"}"#).await? {
        Ok(document) => println!("{document}"),
        Err(error) => println!("{error:?}"),
    }
    Ok(())
}
