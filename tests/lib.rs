//! What the tests share: the plugin, and reading its results.

use hops_k8s::event::Events;
use hops_k8s::plugin::{CallCtx, CallError, EMBEDDED, Loader, Plugin};
use hops_k8s::pods::Pods;
use hops_k8s::policy::Policy;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// The embedded plugin, compiled once for all tests.
pub fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| loader().load(EMBEDDED).expect("the embedded plugin is a plugin"))
}

/// Loads plugins with a cache that the tests share.
pub fn loader() -> Loader {
    let test = std::env::current_exe().expect("a test is a program");
    Loader::default().cache(test.with_file_name("components"))
}

/// Runs a call with the default policy.
pub async fn call(pods: Arc<dyn Pods>, inputs: &Value) -> Result<String, CallError> {
    call_with(pods, Events::default(), inputs).await
}

/// Runs a call with the default policy and tells of its events.
pub async fn call_with(pods: Arc<dyn Pods>, events: Events, inputs: &Value) -> Result<String, CallError> {
    let ctx = CallCtx::new(pods, Arc::new(Policy::default())).events(events);
    plugin().call(ctx, "run", &inputs.to_string()).await
}

/// A result document, taken apart.
#[derive(Debug)]
pub struct Document(pub Value);

impl Document {
    /// Checks the fields that every document has.
    pub fn parse(text: &str) -> Self {
        let document: Value = serde_json::from_str(text).expect("a result is JSON");
        assert_eq!(document["done"], true, "{document}");
        assert_eq!(document["completed"], !document["errored"].as_bool().expect("errored is a boolean"), "{document}");
        assert_eq!(document["hops"]["error"].is_string(), document["errored"], "{document}");
        assert!(document["body"] == "" || document["json"].is_null(), "both filled: {document}");
        Document(document)
    }

    /// The error, empty if there is none.
    pub fn error(&self) -> &str {
        self.0["hops"]["error"].as_str().unwrap_or_default()
    }

    /// The file's text.
    pub fn body(&self) -> &str {
        self.0["body"].as_str().expect("body is a string")
    }

    /// The file's JSON.
    pub fn json(&self) -> &Value {
        &self.0["json"]
    }
}

/// The command `hops`, built with the settings of this test.
pub fn hops() -> &'static Path {
    static HOPS: OnceLock<PathBuf> = OnceLock::new();
    HOPS.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package=hops-k8s", "--bin=hops"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo can be started").success(), "hops does not build");
        let test = std::env::current_exe().expect("a test is a program");
        test.parent().and_then(Path::parent).expect("tests lie in deps").join("hops")
    })
}

/// The document's example, as it stands there.
pub const EXAMPLE: &str = include_str!("example.hops");
