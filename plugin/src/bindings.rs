#![allow(missing_docs, unsafe_code, clippy::all, reason = "generated")]

wit_bindgen::generate!({ world: "k8s-app", path: "../wit", generate_all, pub_export_macro: true, default_bindings_module: "crate::bindings" });
