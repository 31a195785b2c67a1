//! Calls with what their pods do and the exact results, which hold for every host: see `vectors/README.md`.

use hops_k8s::pods::memory::Script;
use hops_k8s::pods::{Cause, ContainerState, Error, Excess, Phase, PodSpec, PodStatus, Refusal, Rule, Terminated};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A call.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Vector {
    /// The name of its file, without the ending.
    #[serde(skip)]
    pub name: String,
    /// The text of its file.
    #[serde(skip)]
    pub text: String,
    /// What it shows.
    pub about: String,
    /// The handler that is called.
    #[serde(default = "run")]
    pub handler: String,
    inputs: Option<Box<RawValue>>,
    inputs_text: Option<String>,
    /// The wall clock at the start.
    pub time: String,
    /// What its pod does.
    #[serde(default)]
    pub pod: Pod,
    /// What the pod is asked for as.
    pub spec: Option<Value>,
    /// How many pods are left.
    #[serde(default)]
    pub pods_left: usize,
    /// The result document.
    pub result: Option<String>,
    /// Why there is none.
    pub call_error: Option<Value>,
}

/// What a pod does.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    refused: Option<ErrorOf>,
    #[serde(default)]
    states: Vec<State>,
    lost: Option<ErrorOf>,
    #[serde(default)]
    files: HashMap<String, FileOf>,
    #[serde(default)]
    log: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct State {
    at_ms: u64,
    #[serde(default)]
    phase: PhaseOf,
    cause: Option<CauseOf>,
    unschedulable: Option<String>,
    #[serde(default)]
    waits_for_room: bool,
    disruption: Option<CauseOf>,
    #[serde(default)]
    deleted: bool,
    main: Option<StateOf>,
    sidecar: Option<StateOf>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PhaseOf {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CauseOf {
    reason: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StateOf {
    Waiting(CauseOf),
    Running,
    Terminated(TerminatedOf),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct TerminatedOf {
    exit_code: i32,
    reason: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FileOf {
    Text(String),
    Base64(String),
    Error(ErrorOf),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ErrorOf {
    PolicyDenied(String),
    Forbidden(RefusalOf),
    QuotaExceeded(String),
    Invalid(String),
    Gone(String),
    TooLarge(ExcessOf),
    Unavailable(String),
    Other(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusalOf {
    message: String,
    missing: Option<RuleOf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleOf {
    verb: String,
    resource: String,
    namespace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExcessOf {
    size: u64,
    limit: u64,
}

fn run() -> String {
    "run".into()
}

impl Vector {
    /// All of them, in order of their names.
    pub fn all() -> Vec<Self> {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors"));
        let entries = fs::read_dir(folder).expect("the vectors are there").map(|entry| entry.expect("a file").path());
        let mut paths: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a vector is text");
        let mut vector: Vector =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        vector.name = path.file_stem().and_then(|name| name.to_str()).expect("a vector has a name").into();
        vector.text = text;
        vector
    }

    /// The JSON text of the inputs.
    pub fn inputs(&self) -> &str {
        match (&self.inputs, &self.inputs_text) {
            (Some(inputs), None) => inputs.get(),
            (None, Some(text)) => text,
            _ => panic!("{}: either inputs or inputs-text", self.name),
        }
    }

    /// What its pod does, for pods in memory.
    pub fn script(&self) -> Script {
        let Pod { refused, states, lost, files, log } = &self.pod;
        let content = |file: &FileOf| match file {
            FileOf::Text(text) => Ok(text.clone().into_bytes()),
            FileOf::Base64(text) => Ok(base64(text)),
            FileOf::Error(error) => Err(error.into()),
        };
        let mut script = Script::default().log(log.as_str());
        script.refused = refused.as_ref().map(Error::from);
        script.statuses = states.iter().map(|state| (Duration::from_millis(state.at_ms), state.into())).collect();
        script.lost = lost.as_ref().map(Error::from);
        script.files = files.iter().map(|(path, file)| (path.clone(), content(file))).collect();
        script
    }
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}

/// A pod's spec as vectors have it.
pub fn spec(spec: &PodSpec) -> Value {
    let files = spec.input_files.iter();
    let files: Vec<Value> =
        files.map(|file| json!({"path": file.path, "text": String::from_utf8_lossy(&file.content)})).collect();
    json!({
        "namespace": spec.namespace,
        "image": spec.image,
        "command": spec.command,
        "args": spec.args,
        "env": spec.env,
        "cpu": spec.cpu,
        "memory": spec.memory,
        "input-dir": spec.input_dir,
        "input-files": files,
        "output-dir": spec.output_dir,
        "lifetime-ms": spec.lifetime_ms,
        "keep": spec.keep,
        "service-account": spec.service_account,
        "image-pull-secrets": spec.image_pull_secrets,
        "node-selector": spec.node_selector,
    })
}

impl From<&State> for PodStatus {
    fn from(state: &State) -> Self {
        PodStatus {
            phase: match state.phase {
                PhaseOf::Pending => Phase::Pending,
                PhaseOf::Running => Phase::Running,
                PhaseOf::Succeeded => Phase::Succeeded,
                PhaseOf::Failed => Phase::Failed,
                PhaseOf::Unknown => Phase::Unknown,
            },
            cause: state.cause.as_ref().map_or_else(|| Cause::new("", ""), Cause::from),
            unschedulable: state.unschedulable.clone(),
            waits_for_room: state.waits_for_room,
            disruption: state.disruption.as_ref().map(Cause::from),
            deleted: state.deleted,
            main: state.main.as_ref().map_or_else(|| ContainerState::Waiting(Cause::new("", "")), ContainerState::from),
            sidecar: state.sidecar.as_ref().map(ContainerState::from),
        }
    }
}

impl From<&CauseOf> for Cause {
    fn from(of: &CauseOf) -> Self {
        Cause::new(&of.reason, &of.message)
    }
}

impl From<&StateOf> for ContainerState {
    fn from(state: &StateOf) -> Self {
        match state {
            StateOf::Waiting(cause) => ContainerState::Waiting(cause.into()),
            StateOf::Running => ContainerState::Running,
            StateOf::Terminated(TerminatedOf { exit_code, reason, message }) => {
                ContainerState::Terminated(Terminated {
                    exit_code: *exit_code,
                    reason: reason.clone(),
                    message: message.clone(),
                })
            }
        }
    }
}

impl From<&ErrorOf> for Error {
    fn from(error: &ErrorOf) -> Self {
        match error {
            ErrorOf::PolicyDenied(why) => Error::PolicyDenied(why.clone()),
            ErrorOf::Forbidden(RefusalOf { message, missing }) => Error::Forbidden(Refusal {
                message: message.clone(),
                missing: missing.as_ref().map(|RuleOf { verb, resource, namespace }| Rule {
                    verb: verb.clone(),
                    resource: resource.clone(),
                    namespace: namespace.clone(),
                }),
            }),
            ErrorOf::QuotaExceeded(why) => Error::QuotaExceeded(why.clone()),
            ErrorOf::Invalid(why) => Error::Invalid(why.clone()),
            ErrorOf::Gone(why) => Error::Gone(why.clone()),
            ErrorOf::TooLarge(ExcessOf { size, limit }) => Error::TooLarge(Excess { size: *size, limit: *limit }),
            ErrorOf::Unavailable(why) => Error::Unavailable(why.clone()),
            ErrorOf::Other(why) => Error::Other(why.clone()),
        }
    }
}
