//! The Kubernetes app as a WebAssembly component: it decides, the host acts.
//!
//! A call passes through these files: [`inputs`] (JSON → checked inputs) → [`request`] (→ pod spec) → [`progress`] (pod
//! status → wait or end) → [`result`] (file → result document). `call` connects them. It alone uses the imports; the
//! others are pure functions.

mod bindings;
mod call;
pub mod inputs;
pub mod progress;
pub mod request;
pub mod result;
#[path = "../../host/src/shared/mod.rs"]
pub mod shared;

use bindings::exports::hiphops::app::app::{CallError, Description, Guest, Handler, Problem};

/// The component's exports.
struct App;

impl Guest for App {
    fn describe() -> Description {
        Description {
            name: "k8s".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Runs containers as pods in a Kubernetes cluster.".into(),
            handlers: vec![Handler {
                name: RUN.into(),
                summary: "Runs a container image as a pod and returns the result file that it wrote.".into(),
                inputs_schema: inputs::SCHEMA.into(),
            }],
        }
    }

    fn check(handler: String, inputs: String) -> Result<Vec<Problem>, CallError> {
        check_name(&handler)?;
        Ok(inputs::parse(&inputs).err().unwrap_or_default())
    }

    fn call(handler: String, inputs: String) -> Result<String, CallError> {
        check_name(&handler)?;
        Ok(call::run(&inputs))
    }
}

const RUN: &str = "run";

fn check_name(handler: &str) -> Result<(), CallError> {
    if handler == RUN {
        return Ok(());
    }
    Err(CallError::UnknownHandler(format!("the app k8s has no handler {handler:?}; it has {RUN:?}")))
}

// For WebAssembly only: a linker of another target does not take the names of the exports.
#[cfg(target_family = "wasm")]
mod export {
    #![allow(unsafe_code, reason = "generated")]
    use super::App;
    crate::bindings::export!(App with_types_in crate::bindings);
}
