//! What `wasmtime::component::bindgen!` makes of the contract in `wit/`, for embedders with a store of their own.

#![allow(missing_docs, reason = "generated from wit/, where every item is documented")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "k8s-app",
    imports: { default: async | trappable },
    exports: { default: async },
    trappable_error_type: { "hiphops:k8s/pods.error" => crate::error::TrappableError },
    additional_derives: [PartialEq, Eq],
});
