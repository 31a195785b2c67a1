//! Calls, what their pods do, and the exact results that every host gets: see `vectors/README.md`.

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
    /// The name of its file without `.json`.
    #[serde(skip)]
    pub name: String,
    /// The text of its file.
    #[serde(skip)]
    pub text: String,
    /// What the call shows.
    pub about: String,
    /// The handler that is called.
    #[serde(default = "run")]
    pub handler: String,
    inputs: Option<Box<RawValue>>,
    inputs_text: Option<String>,
    /// The wall clock at the start of the call.
    pub time: String,
    /// What the call's pod does.
    #[serde(default)]
    pub pod: Pod,
    /// The spec with which the pod is asked for.
    pub spec: Option<Value>,
    /// How many pods are left after the call.
    #[serde(default)]
    pub pods_left: usize,
    /// The result document.
    pub result: Option<String>,
    /// The call error, if there is no document.
    pub call_error: Option<Value>,
}

/// What a pod does.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    refused: Option<ErrorJson>,
    #[serde(default)]
    states: Vec<State>,
    lost: Option<ErrorJson>,
    #[serde(default)]
    files: HashMap<String, FileJson>,
    #[serde(default)]
    log: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct State {
    at_ms: u64,
    #[serde(default)]
    phase: PhaseJson,
    cause: Option<CauseJson>,
    unschedulable: Option<String>,
    #[serde(default)]
    waits_for_room: bool,
    disruption: Option<CauseJson>,
    #[serde(default)]
    deleted: bool,
    main: Option<StateJson>,
    sidecar: Option<StateJson>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PhaseJson {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CauseJson {
    reason: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StateJson {
    Waiting(CauseJson),
    Running,
    Terminated(TerminatedJson),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct TerminatedJson {
    exit_code: i32,
    reason: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FileJson {
    Text(String),
    Base64(String),
    Error(ErrorJson),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ErrorJson {
    PolicyDenied(String),
    Forbidden(RefusalJson),
    QuotaExceeded(String),
    Invalid(String),
    Gone(String),
    TooLarge(ExcessJson),
    Unavailable(String),
    Other(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusalJson {
    message: String,
    missing: Option<RuleJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleJson {
    verb: String,
    resource: String,
    namespace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExcessJson {
    size: u64,
    limit: u64,
}

fn run() -> String {
    "run".into()
}

impl Vector {
    /// All vectors, sorted by name.
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
            _ => panic!("{}: expected either inputs or inputs-text", self.name),
        }
    }

    /// The script of the call's pod, for pods in memory.
    pub fn script(&self) -> Script {
        self.pod.script()
    }
}

impl Pod {
    /// The script of this pod, for pods in memory.
    pub fn script(&self) -> Script {
        let Pod { refused, states, lost, files, log } = self;
        let content = |file: &FileJson| match file {
            FileJson::Text(text) => Ok(text.clone().into_bytes()),
            FileJson::Base64(text) => Ok(base64(text)),
            FileJson::Error(error) => Err(error.into()),
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

/// A pod's spec as a vector writes it.
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
                PhaseJson::Pending => Phase::Pending,
                PhaseJson::Running => Phase::Running,
                PhaseJson::Succeeded => Phase::Succeeded,
                PhaseJson::Failed => Phase::Failed,
                PhaseJson::Unknown => Phase::Unknown,
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

impl From<&CauseJson> for Cause {
    fn from(of: &CauseJson) -> Self {
        Cause::new(&of.reason, &of.message)
    }
}

impl From<&StateJson> for ContainerState {
    fn from(state: &StateJson) -> Self {
        match state {
            StateJson::Waiting(cause) => ContainerState::Waiting(cause.into()),
            StateJson::Running => ContainerState::Running,
            StateJson::Terminated(TerminatedJson { exit_code, reason, message }) => {
                ContainerState::Terminated(Terminated {
                    exit_code: *exit_code,
                    reason: reason.clone(),
                    message: message.clone(),
                })
            }
        }
    }
}

impl From<&ErrorJson> for Error {
    fn from(error: &ErrorJson) -> Self {
        match error {
            ErrorJson::PolicyDenied(why) => Error::PolicyDenied(why.clone()),
            ErrorJson::Forbidden(RefusalJson { message, missing }) => Error::Forbidden(Refusal {
                message: message.clone(),
                missing: missing.as_ref().map(|RuleJson { verb, resource, namespace }| Rule {
                    verb: verb.clone(),
                    resource: resource.clone(),
                    namespace: namespace.clone(),
                }),
            }),
            ErrorJson::QuotaExceeded(why) => Error::QuotaExceeded(why.clone()),
            ErrorJson::Invalid(why) => Error::Invalid(why.clone()),
            ErrorJson::Gone(why) => Error::Gone(why.clone()),
            ErrorJson::TooLarge(ExcessJson { size, limit }) => Error::TooLarge(Excess { size: *size, limit: *limit }),
            ErrorJson::Unavailable(why) => Error::Unavailable(why.clone()),
            ErrorJson::Other(why) => Error::Other(why.clone()),
        }
    }
}
