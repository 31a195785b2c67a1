//! Pods and clocks for a host that has none. They play the vector in the environment variable `VECTOR`.

mod bindings {
    #![allow(clippy::all, reason = "generated")]
    wit_bindgen::generate!({
        world: "hiphops:stub/stub",
        path: ["../../../../wit", "wit"],
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "crate::bindings",
    });
}

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bindings::exports::hiphops::k8s::pods::{
    Cause, ContainerState, Error, Excess, Guest, GuestPod, Phase, Pod, PodSpec, PodStatus, Refusal, Rule, Terminated,
};
use bindings::exports::wasi::clocks::{monotonic_clock, wall_clock};
use bindings::wasi::cli::environment::get_environment;
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

thread_local! {
    /// The time since the start of the call, in milliseconds.
    static NOW: Cell<u64> = const { Cell::new(0) };
}

fn vector() -> Value {
    let environment = get_environment();
    let text = environment.iter().find(|(name, _)| name == "VECTOR").map(|(_, text)| text.as_str());
    serde_json::from_str(text.expect("VECTOR is set")).expect("VECTOR is a vector")
}

struct Stub;

impl wall_clock::Guest for Stub {
    fn now() -> wall_clock::Datetime {
        let start = humantime::parse_rfc3339(&text(&vector()["time"])).expect("the time is as in RFC 3339");
        let now = start.duration_since(UNIX_EPOCH).expect("the time is after 1970") + Duration::from_millis(NOW.get());
        wall_clock::Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() }
    }
}

impl monotonic_clock::Guest for Stub {
    fn now() -> monotonic_clock::Instant {
        NOW.get() * 1_000_000
    }
}

impl Guest for Stub {
    type Pod = Played;
}

struct Played {
    vector: Value,
    next: Cell<usize>,
}

impl GuestPod for Played {
    fn create(spec: PodSpec) -> Result<Pod, Error> {
        let vector = vector();
        let (asked, expected) = (json_of(&spec), &vector["spec"]);
        if !expected.is_null() && asked != *expected {
            return Err(Error::Other(format!("the spec of the pod is {asked}, expected {expected}")));
        }
        match &vector["pod"]["refused"] {
            Value::Null => Ok(Pod::new(Played { vector, next: Cell::new(0) })),
            refused => Err(error(refused)),
        }
    }

    fn name(&self) -> String {
        "pod-1".into()
    }

    fn wait(&self, timeout_ms: u64) -> Result<Option<PodStatus>, Error> {
        let pod = &self.vector["pod"];
        let state = &pod["states"][self.next.get()];
        if state.is_null() && !pod["lost"].is_null() {
            return Err(error(&pod["lost"]));
        }
        let latest = NOW.get().saturating_add(timeout_ms);
        match state["at-ms"].as_u64() {
            Some(at) if at <= latest => {
                NOW.set(at.max(NOW.get()));
                self.next.set(self.next.get() + 1);
                Ok(Some(status(state)))
            }
            _ => {
                NOW.set(latest);
                Ok(None)
            }
        }
    }

    fn read_file(&self, path: String) -> Result<Option<Vec<u8>>, Error> {
        let file = &self.vector["pod"]["files"][path];
        if !file["error"].is_null() {
            return Err(error(&file["error"]));
        }
        let encoded = file["base64"].as_str().map(|encoded| STANDARD.decode(encoded).expect("base64"));
        Ok(encoded.or_else(|| file["text"].as_str().map(|text| text.as_bytes().to_vec())))
    }

    fn tail_logs(&self, lines: u32) -> Result<String, Error> {
        let log = text(&self.vector["pod"]["log"]);
        let all: Vec<&str> = log.lines().collect();
        let skipped = all.len().saturating_sub(lines as usize);
        Ok(all.get(skipped..).unwrap_or_default().join("\n"))
    }

    fn delete(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().into()
}

fn status(state: &Value) -> PodStatus {
    PodStatus {
        phase: match state["phase"].as_str() {
            None | Some("pending") => Phase::Pending,
            Some("running") => Phase::Running,
            Some("succeeded") => Phase::Succeeded,
            Some("failed") => Phase::Failed,
            _ => Phase::Unknown,
        },
        cause: cause(&state["cause"]),
        unschedulable: state["unschedulable"].as_str().map(String::from),
        waits_for_room: state["waits-for-room"] == true,
        disruption: if state["disruption"].is_null() { None } else { Some(cause(&state["disruption"])) },
        deleted: state["deleted"] == true,
        main: container(&state["main"]),
        sidecar: if state["sidecar"].is_null() { None } else { Some(container(&state["sidecar"])) },
    }
}

fn cause(value: &Value) -> Cause {
    Cause { reason: text(&value["reason"]), message: text(&value["message"]) }
}

fn container(state: &Value) -> ContainerState {
    let end = &state["terminated"];
    if state == "running" {
        ContainerState::Running
    } else if end.is_null() {
        ContainerState::Waiting(cause(&state["waiting"]))
    } else {
        let exit_code = end["exit-code"].as_i64().and_then(|code| code.try_into().ok());
        ContainerState::Terminated(Terminated {
            exit_code: exit_code.expect("an exit code"),
            reason: text(&end["reason"]),
            message: text(&end["message"]),
        })
    }
}

fn error(value: &Value) -> Error {
    let (kind, payload) = value.as_object().and_then(|error| error.iter().next()).expect("an error has one key");
    let why = text(payload);
    match &**kind {
        "policy-denied" => Error::PolicyDenied(why),
        "forbidden" => {
            let rule = &payload["missing"];
            let missing = rule.is_object().then(|| Rule {
                verb: text(&rule["verb"]),
                resource: text(&rule["resource"]),
                namespace: text(&rule["namespace"]),
            });
            Error::Forbidden(Refusal { message: text(&payload["message"]), missing })
        }
        "quota-exceeded" => Error::QuotaExceeded(why),
        "invalid" => Error::Invalid(why),
        "gone" => Error::Gone(why),
        "too-large" => {
            let number = |name: &str| payload[name].as_u64().unwrap_or_default();
            Error::TooLarge(Excess { size: number("size"), limit: number("limit") })
        }
        "unavailable" => Error::Unavailable(why),
        _ => Error::Other(why),
    }
}

fn json_of(spec: &PodSpec) -> Value {
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

#[cfg(target_family = "wasm")]
mod export {
    use super::Stub;
    crate::bindings::export!(Stub with_types_in crate::bindings);
}
