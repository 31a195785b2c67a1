//! What the tests share: the plugin, its results, a cluster, a queue, and waiting.

pub mod cases;
pub mod client;
pub mod cluster;
pub mod nats;
pub mod rss;
pub mod vector;

use hops_k8s::event::Events;
use hops_k8s::plugin::{CallCtx, CallError, EMBEDDED, Limits, Plugin, Plugins, Runtime};
use hops_k8s::pods::Pods;
use hops_k8s::policy::Policy;
use hops_k8s::runner::Runner;
use serde_json::Value;
use std::fmt::Debug;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The embedded plugin, compiled once for all tests.
pub fn plugin() -> &'static Plugin {
    compiled()
}

/// The same plugin, for a caller that keeps it.
pub fn shared_plugin() -> Arc<Plugin> {
    compiled().clone()
}

fn compiled() -> &'static Arc<Plugin> {
    static PLUGIN: OnceLock<Arc<Plugin>> = OnceLock::new();
    PLUGIN.get_or_init(|| Arc::new(runtime(Limits::default()).load(EMBEDDED).expect("the embedded plugin is a plugin")))
}

/// A runtime with a cache that the tests share.
pub fn runtime(limits: Limits) -> Runtime {
    let test = std::env::current_exe().expect("a test is a program");
    Runtime::new(limits).expect("this machine runs WebAssembly").cache(test.with_file_name("components"))
}

/// Runs calls of the embedded plugin.
pub async fn runner(pods: Arc<dyn Pods>, policy: Policy) -> Runner {
    Runner::new(plugins([shared_plugin()]).await, pods, policy)
}

/// These plugins, by the names of their apps.
pub async fn plugins(plugins: impl IntoIterator<Item = Arc<Plugin>>) -> Plugins {
    Plugins::new(plugins).await.expect("each is an app of its own")
}

/// The default policy with a change.
pub fn policy(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = Policy::default();
    change(&mut policy);
    policy
}

/// Builds a plugin from the text of a core module that has the contract's imports and exports.
pub fn component_of(module: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).expect("this is a module");
    let mut contract = wit_parser::Resolve::default();
    let (package, _) =
        contract.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit")).expect("the contract is in wit/");
    let world = contract.select_world(&[package], Some("k8s-app")).expect("the contract has this world");
    wit_component::embed_component_metadata(&mut module, &contract, world, wit_component::StringEncoding::UTF8)
        .expect("there is room for the contract");
    let encoder = wit_component::ComponentEncoder::default().module(&module);
    encoder.and_then(|mut encoder| encoder.encode()).expect("this module is as the contract says")
}

/// A plugin of another app than the embedded one. It has one handler, which answers each call with this document.
pub fn other_app(app: &str, handler: &str, document: &str) -> Arc<Plugin> {
    const TEXTS: usize = 1024;
    let (mut text, mut places) = (String::new(), vec![]);
    for part in [app, "1.0.0", "Answers.", handler, "{}", document] {
        places.push((TEXTS + text.len(), part.len()));
        text += part;
    }
    let [app, version, summary, handler, schema, document] = places[..] else { unreachable!("six texts were placed") };
    let record = |places: &[(usize, usize)]| -> String {
        let numbers = places.iter().flat_map(|(start, bytes)| [*start, *bytes]);
        numbers
            .flat_map(|number| u32::try_from(number).expect("it fits").to_le_bytes())
            .map(|b| format!("\\{b:02x}"))
            .collect()
    };
    let bytes: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let module = format!(
        r#"(module
            (memory (export "memory") 2)
            (data (i32.const 0) "{description}")
            (data (i32.const 64) "{handler}")
            (data (i32.const 128) "\00\00\00\00{document}")
            (data (i32.const 256) "\00\00\00\00\00\00\00\00\00\00\00\00")
            (data (i32.const {TEXTS}) "{bytes}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 65536)
            (func (export "hiphops:app/app@0.1.0#describe") (result i32) i32.const 0)
            (func (export "hiphops:app/app@0.1.0#check") (param i32 i32 i32 i32) (result i32) i32.const 256)
            (func (export "hiphops:app/app@0.1.0#call") (param i32 i32 i32 i32) (result i32) i32.const 128))"#,
        description = record(&[app, version, summary, (64, 1)]),
        handler = record(&[handler, summary, schema]),
        document = record(&[document]),
    );
    Arc::new(runtime(Limits::default()).load(&component_of(&module)).expect("this is a plugin"))
}

/// Runs a call with the default policy.
pub async fn call(pods: Arc<dyn Pods>, inputs: &Value) -> Result<String, CallError> {
    call_with(pods, Events::default(), inputs).await
}

/// Runs a call whose inputs need not be JSON.
pub async fn call_text(pods: Arc<dyn Pods>, inputs: &str) -> Result<String, CallError> {
    let ctx = CallCtx::new(pods, Arc::new(Policy::default()));
    Ok(plugin().call(ctx, "run", inputs).await?.into_text())
}

/// Runs a call with the default policy and sends its events.
pub async fn call_with(pods: Arc<dyn Pods>, events: Events, inputs: &Value) -> Result<String, CallError> {
    let ctx = CallCtx::new(pods, Arc::new(Policy::default())).events(events);
    Ok(plugin().call(ctx, "run", &inputs.to_string()).await?.into_text())
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
        build.args(["build", "--quiet", "--workspace", "--bin=hops"]);
        // What cargo says to tests about their package would have dependencies built again that look at it.
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.to_string_lossy().starts_with("CARGO_PKG_")) {
            build.env_remove(name);
        }
        build.env_remove("CARGO_MANIFEST_DIR");
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo can be started").success(), "hops does not build");
        target().join(if cfg!(debug_assertions) { "debug" } else { "release" }).join("hops")
    })
}

/// The folder that cargo builds in.
pub fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a program");
    test.ancestors().nth(3).expect("tests lie in target/PROFILE/deps").into()
}

/// Between two looks of [`eventually`].
const PAUSE: Duration = Duration::from_millis(50);

/// Evaluates `condition` again and again until it is `Ok`. The clock is Tokio's, so it may be a paused one.
///
/// # Panics
/// When the deadline has passed: with `what`, and with the last error of the condition.
pub async fn eventually<T, E: Debug>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let mut last = None;
    let looking = async {
        loop {
            match condition().await {
                Ok(value) => return value,
                Err(state) => last = Some(state),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let found = tokio::time::timeout(deadline, looking).await;
    found.unwrap_or_else(|_| match last {
        Some(state) => panic!("not within {deadline:?}: {what}: {state:?}"),
        None => panic!("not within {deadline:?}: {what}: the first look did not return"),
    })
}

/// Prints that a test is skipped, even where the test harness captures the output of tests.
///
/// # Panics
/// If this environment variable is `required`: then nothing may be skipped.
pub fn skip(variable: &str, why: &str) {
    let is_required = std::env::var_os(variable).is_some_and(|value| value == "required");
    assert!(!is_required, "{why}, and {variable}=required lets no test be skipped");
    let thread = std::thread::current();
    // The harness captures `println!` and `eprintln!`, not this.
    let _ = writeln!(std::io::stderr(), "skipped: {}: {why}", thread.name().unwrap_or("a test"));
}

/// A folder with these files, by name.
pub fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("there is room for a folder");
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).expect("there is room for files");
    }
    dir
}

/// The document's example, as it stands there.
pub const EXAMPLE: &str = include_str!("../example.hops");

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    const DEADLINE: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 2s: the answer is known: \"still thinking\"")]
    async fn a_wait_that_fails_says_for_what_and_the_last_state() {
        eventually("the answer is known", DEADLINE, async || Err::<(), _>("still thinking")).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 2s: the answer is known: the first look did not return")]
    async fn a_wait_has_a_deadline_even_if_the_condition_hangs() {
        eventually("the answer is known", DEADLINE, async || pending::<Result<(), ()>>().await).await;
    }
}
