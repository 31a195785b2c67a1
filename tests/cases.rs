//! What calls mean, whatever their pods run on: one table for all backends.

use crate::{Document, call};
use futures::StreamExt;
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::pods::{Cause, PodSpec, PodStatus, Pods};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

const MIB: usize = 1024 * 1024;
/// Calls of the table that run side by side.
const AT_ONCE: usize = 8;

/// What pods run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Memory,
    Process,
    Engine,
    Kube,
}

/// A call and what it comes to.
pub struct Case {
    name: &'static str,
    inputs: Value,
    /// What the container does, for the backend that only plays.
    plays: Box<dyn Fn(&PodSpec) -> Script + Send + Sync>,
    expected: Expected,
    /// Backends that cannot do it, with the reason.
    not_on: Vec<(Backend, &'static str)>,
}

struct Expected {
    /// All of it, or with `…` at its end what it begins with.
    error: String,
    body: String,
    json: Value,
}

impl Expected {
    fn is_met_by(&self, document: &Document) -> bool {
        let error = match self.error.strip_suffix('…') {
            Some(start) => document.error().starts_with(start),
            None => document.error() == self.error,
        };
        error && document.body() == self.body && *document.json() == self.json
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body: String = self.body.chars().take(200).collect();
        write!(f, "error {:?}, body {body:?}, json {}", self.error, self.json)
    }
}

/// Runs the table, with `base` among the inputs of each call, and fails with all that is not as it should be.
pub async fn check(backend: Backend, pods: Arc<dyn Pods>, base: &Value) {
    check_with(backend, |_| pods.clone(), base).await;
}

/// Runs the table on scripted pods.
pub async fn check_memory() {
    check_with(Backend::Memory, |plays| Arc::new(Memory::new(plays)), &json!({"image": "bash:5"})).await;
}

type Plays = Box<dyn Fn(&PodSpec) -> Script + Send + Sync>;

async fn check_with(backend: Backend, pods: impl Fn(Plays) -> Arc<dyn Pods>, base: &Value) {
    let outcomes = futures::stream::iter(all()).map(|case| {
        let mut inputs = base.clone();
        for (name, value) in case.inputs.as_object().expect("inputs are an object") {
            inputs[name] = value.clone();
        }
        let pods = pods(case.plays);
        let reason = case.not_on.iter().find(|(other, _)| *other == backend).map(|(_, reason)| *reason);
        async move {
            if let Some(reason) = reason {
                return (case.name, format!("not on {backend:?}: {reason}"), true);
            }
            let document = Document::parse(&call(pods, &inputs).await.expect("the plugin gives a document"));
            if case.expected.is_met_by(&document) {
                return (case.name, "ok".into(), true);
            }
            let mut found = document.0.to_string();
            found.truncate(2000);
            (case.name, format!("expected {}\n  found {found}", case.expected), false)
        }
    });
    let outcomes: Vec<_> = outcomes.buffered(AT_ONCE).collect().await;
    for (name, outcome, _) in &outcomes {
        println!("{backend:?}: {name}: {outcome}");
    }
    let wrong: Vec<_> = outcomes.iter().filter(|(.., is_right)| !is_right).map(|(name, ..)| name).collect();
    assert!(wrong.is_empty(), "not as on other backends: {wrong:#?}");
}

fn case(name: &'static str, inputs: Value, plays: impl Fn(&PodSpec) -> Script + Send + Sync + 'static) -> Case {
    let expected = Expected { error: String::new(), body: String::new(), json: Value::Null };
    Case { name, inputs, plays: Box::new(plays), expected, not_on: vec![] }
}

fn bash(script: &str) -> Value {
    json!({"command": ["bash", "-c", script]})
}

/// The same, with more inputs.
fn bash_with(script: &str, more: Value) -> Value {
    let mut inputs = more;
    inputs["command"] = json!(["bash", "-c", script]);
    inputs
}

impl Case {
    fn error(mut self, error: impl Into<String>) -> Self {
        self.expected.error = error.into();
        self
    }

    fn body(mut self, body: impl Into<String>) -> Self {
        self.expected.body = body.into();
        self
    }

    fn json(mut self, json: Value) -> Self {
        self.expected.json = json;
        self
    }

    fn not_on(mut self, backend: Backend, reason: &'static str) -> Self {
        self.not_on.push((backend, reason));
        self
    }
}

/// A pod that fails with this log.
fn fails(code: i32, log: &str) -> Script {
    let mut script = Script::default().at(0, PodStatus::running()).at(10, PodStatus::exited(code, "Error", log));
    script.log = log.into();
    script
}

fn oom_killed(code: i32) -> Script {
    Script::default().at(0, PodStatus::running()).at(10, PodStatus::exited(code, "OOMKilled", ""))
}

const NO_IMAGE: &str = "the image is not used, the machine's own programs are";
const LISTING: &str = r#"cd /input; find . -follow -type f -not -path './..*' -print0 | while IFS= read -r -d '' name; do
    printf '%s\t%s\0' "${name#./}" "$(od -An -v -tx1 "$name" | tr -d ' \n')"; done | sort -z > /output/result.txt"#;

/// What [`LISTING`] prints of these files.
fn listing<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let hex = |content: &[u8]| content.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut lines: Vec<String> = files.map(|(name, content)| format!("{name}\t{}\0", hex(content))).collect();
    lines.sort();
    lines.concat()
}

fn all() -> Vec<Case> {
    let five_mebibytes: String = (1_000_000..=1_655_359).map(|number| format!("{number}\n")).collect();
    assert_eq!(five_mebibytes.len(), 5 * MIB);
    let five_again = five_mebibytes.clone();
    let odd_files = json!({
        "plain.txt": "plain", "a/b/c.txt": "nested", "with space.txt": "space", ".hidden": "dot", "a/ü–雪.txt": "non-ASCII",
        "quote\"'$(x)`.txt": "quotes", "empty": "", "new\nline": "odd", "nul": "a\u{0}b", "-rf": "dash",
        "long/".to_owned() + &"x".repeat(200): "long",
    });
    let odd_listing = {
        let files = odd_files.as_object().expect("files are an object");
        listing(files.iter().map(|(name, content)| (&**name, content.as_str().unwrap_or_default().as_bytes())))
    };
    let parts: serde_json::Map<String, Value> =
        (0..6).map(|number| (format!("part-{number}"), number.to_string().repeat(MIB / 2).into())).collect();
    let last_20: String = (81..=100).map(|number| format!("\n{number}")).collect();
    vec![
        case(
            "a JSON object is json",
            bash(r#"echo '{"greeting": "Hello world!"}' > /output/result.json"#),
            |_| Script::exits(0).file("result.json", "{\"greeting\": \"Hello world!\"}\n"),
        )
        .json(json!({"greeting": "Hello world!"})),
        case("a JSON array is json", bash("echo '[1, 2.50]' > /output/result.json"), |_| {
            Script::exits(0).file("result.json", "[1, 2.50]\n")
        })
        .json(json!([1, 2.50])),
        case("a number in a .json file is json", bash("echo 5 > /output/result.json"), |_| {
            Script::exits(0).file("result.json", "5\n")
        })
        .json(json!(5)),
        case(
            "a number in another file is the body",
            bash_with("echo 5 > /output/result.txt", json!({"out_path": "result.txt"})),
            |_| Script::exits(0).file("result.txt", "5\n"),
        )
        .body("5\n"),
        case("plain text is the body", bash("echo -n hello > /output/result.json"), |_| {
            Script::exits(0).file("result.json", "hello")
        })
        .body("hello"),
        case("no file is an empty body", bash("true"), |_| Script::exits(0)),
        case("an empty file is an empty body", bash("> /output/result.json"), |_| Script::exits(0).file("result.json", "")),
        case(
            "a result may lie deep in the output directory",
            bash_with(
                "mkdir -p '/output/a b/ü'; echo -n deep > '/output/a b/ü/result.txt'",
                json!({"out_path": "a b/ü/result.txt"}),
            ),
            |_| Script::exits(0).file("a b/ü/result.txt", "deep"),
        )
        .body("deep"),
        case("a result may be a link to another file", bash("echo -n far > /output/far; ln -s far /output/result.json"), |_| {
            Script::exits(0).file("result.json", "far")
        })
        .body("far"),
        case("a result only its owner may read", bash("echo -n mine > /output/result.json; chmod 600 /output/result.json"), |_| {
            Script::exits(0).file("result.json", "mine")
        })
        .body("mine"),
        case(
            "a result of another user",
            bash("echo -n theirs > /output/result.json; chmod 600 /output/result.json; chown 4711 /output/result.json"),
            |_| Script::exits(0).file("result.json", "theirs"),
        )
        .body("theirs")
        .not_on(Backend::Process, "the sandbox has one user"),
        case(
            "five mebibytes arrive byte for byte",
            bash("seq 1000000 1655359 > /output/result.json"),
            move |_| Script::exits(0).file("result.json", &*five_again),
        )
        .body(five_mebibytes),
        case(
            "a result over the limit is an error with both sizes",
            bash("head -c 8388609 /dev/zero > /output/result.json"),
            |_| Script::exits(0).file("result.json", vec![0; 8_388_609]),
        )
        .error("ResultTooLarge: result.json is 8388609 bytes, more than the host's limit of 8388608 bytes"),
        case("a result that is not UTF-8 is an error", bash(r"printf 'ab\xffc' > /output/result.json"), |_| {
            Script::exits(0).file("result.json", b"ab\xffc")
        })
        .error("InvalidResult: the result file is not UTF-8: 4 bytes, the first bad one at offset 2"),
        case("an exit code is an error with the log", bash("echo boom >&2; exit 3"), |_| fails(3, "boom\n"))
            .error("Error: container exited with code 3\nboom"),
        case("an exit code with a result gives both", bash("echo partial > /output/result.json; exit 3"), |_| {
            fails(3, "").file("result.json", "partial\n")
        })
        .error("Error: container exited with code 3")
        .body("partial\n"),
        case("an error tells the last 20 lines of the log", bash("seq 100; exit 1"), |_| {
            fails(1, &(1..=100).map(|number| format!("{number}\n")).collect::<String>())
        })
        .error(format!("Error: container exited with code 1{last_20}")),
        case("a signal has its name", bash("exec 2>/dev/null; (kill -9 $BASHPID)"), |_| fails(137, ""))
            .error("Error: container exited with code 137 (SIGKILL)"),
        case(
            "a container over its memory limit is an OOM kill",
            bash_with(
                "echo -n early > /output/result.json; x=$(head -c 100000000 /dev/zero | tr '\\0' x)",
                json!({"memory": "32Mi"}),
            ),
            |_| oom_killed(137).file("result.json", "early"),
        )
        .error("OOMKilled: the container ran into its memory limit of 32Mi; raise \"memory\"…")
        .body("early"),
        case(
            "an OOM kill of a child counts, whatever the exit code",
            bash_with(
"(echo 1000 > /proc/self/oom_score_adj; x=$(head -c 100000000 /dev/zero | tr '\\0' x)) 2>/dev/null
                 echo -n late > /output/result.json; exit 0",
json!({"memory": "32Mi"})),
            |_| oom_killed(0).file("result.json", "late"),
        )
        .error("OOMKilled: the container ran into its memory limit of 32Mi; raise \"memory\"…")
        .body("late"),
        case(
            "a timeout ends the container and keeps its result",
            bash_with("echo tick; echo -n so far > /output/result.json; sleep 60", json!({"timeout": "2s"})),
            |_| {
                let mut script = Script::default().at(0, PodStatus::running()).file("result.json", "so far");
                script.log = "tick\n".into();
                script
            },
        )
        .error("Timeout: the container ran longer than 2s and was ended; raise \"timeout\" if it needs longer\ntick")
        .body("so far"),
        case(
            "a log that is no text is told as far as it is",
            bash_with(r"printf 'a\xffb\n'; sleep 60", json!({"timeout": "2s"})),
            |_| {
                let mut script = Script::default().at(0, PodStatus::running());
                script.log = "a\u{fffd}b\n".into();
                script
            },
        )
        .error("Timeout: the container ran longer than 2s and was ended; raise \"timeout\" if it needs longer\na\u{fffd}b"),
        case("what runs in the background ends with the command", bash("sleep 600 & echo -n done > /output/result.json"), |_| {
            Script::exits(0).file("result.json", "done")
        })
        .body("done"),
        case(
            "a program that is not there is an error at once",
            json!({"command": ["/no/such/program"]}),
            |_| Script::default().at(0, PodStatus::exited(128, "StartError", "/no/such/program: no such file")),
        )
        .error("StartError: …"),
        case("an image that is not there is an error", json!({"image": "nobody/has:this", "command": ["true"]}), |_| {
            Script::default().at(0, PodStatus::waiting("ErrImagePull", "not found"))
        })
        .error("ErrImagePull: …")
        .not_on(Backend::Process, NO_IMAGE),
        case("an image's name that cannot be is an error", json!({"image": "UPPER:case", "command": ["true"]}), |_| {
            Script::default().at(0, PodStatus::waiting("InvalidImageName", "repository name must be lowercase"))
        })
        .error("InvalidImageName: …")
        .not_on(Backend::Process, NO_IMAGE),
        case("args go to the image's own command", json!({"args": ["-c", "echo -n own > /output/result.json"]}), |_| {
            Script::exits(0).file("result.json", "own")
        })
        .body("own")
        .not_on(Backend::Process, NO_IMAGE),
        case("args follow the command", json!({"command": ["bash", "-c"], "args": ["echo -n $0 > /output/result.json", "a b"]}), |_| {
            Script::exits(0).file("result.json", "a b")
        })
        .body("a b"),
        case(
            "directories and variables are as asked for",
            bash_with(
                r#"echo "$GREETING $HIPHOPS_INPUT_DIR $HIPHOPS_OUTPUT_DIR $HIPHOPS_RESULT_PATH $(cat /data/in/a)" \
                    > "$HIPHOPS_OUTPUT_DIR/$HIPHOPS_RESULT_PATH""#,
                json!({
                    "env": {"GREETING": "Hello, $USER & co"}, "in_dir": "/data/in", "out_dir": "/data/out",
                    "out_path": "answer.txt", "in_files": {"a": "b"},
                }),
            ),
            |spec| {
                let value = |name: &str| spec.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
                let (input, output) = (value("HIPHOPS_INPUT_DIR"), value("HIPHOPS_OUTPUT_DIR"));
                let (greeting, path) = (value("GREETING"), value("HIPHOPS_RESULT_PATH"));
                Script::exits(0).file("answer.txt", format!("{greeting} {input} {output} {path} b\n"))
            },
        )
        .body("Hello, $USER & co /data/in /data/out answer.txt b\n"),
        case("the container starts in / with nothing on its standard input", bash("{ pwd; cat; } > /output/result.json"), |_| {
            Script::exits(0).file("result.json", "/\n")
        })
        .body("/\n"),
        case(
            "input files have the names and contents that were given",
            bash_with(LISTING, json!({"in_files": odd_files, "out_path": "result.txt"})),
            |spec| {
                let files = spec.input_files.iter().map(|file| (&*file.path, &*file.content));
                Script::exits(0).file("result.txt", listing(files))
            },
        )
        .body(odd_listing),
        case(
            "three mebibytes of input files arrive",
            bash_with("cat /input/part-* | wc -c > /output/result.json", json!({"in_files": parts})),
            |spec| {
                let size: usize = spec.input_files.iter().map(|file| file.content.len()).sum();
                Script::exits(0).file("result.json", format!("{size}\n"))
            },
        )
        .json(json!(3 * MIB)),
        case(
            "input files cannot be written to",
            bash_with(
                "exec 2>/dev/null; if echo x > /input/a; then echo -n written; else echo -n refused; fi > /output/result.json",
                json!({"in_files": {"a": "b"}}),
            ),
            |_| Script::exits(0).file("result.json", "refused"),
        )
        .body("refused")
        .not_on(Backend::Engine, "files come as an archive, and root can write to them"),
        case(
            "without input files there is no input directory",
            bash("if [ -e /input ]; then echo -n there; else echo -n none; fi > /output/result.json"),
            |_| Script::exits(0).file("result.json", "none"),
        )
        .body("none"),
        case(
            "a log of many megabytes holds nothing up",
            bash("yes 0123456789 | head -c 20000000; echo -n ok > /output/result.json"),
            |_| Script::exits(0).file("result.json", "ok"),
        )
        .body("ok"),
        case("a pod that finds no place is an error with the reason", json!({"cpu": "4000", "command": ["true"], "start_timeout": "3s"}), |_| {
            let mut pending = PodStatus::waiting("", "");
            pending.unschedulable = Some(Cause::new("", "0/1 nodes are available: 1 Insufficient cpu").message);
            Script::default().at(0, pending)
        })
        .error("StartTimeout: the container did not start within 3s: 0/1 nodes are available: 1 Insufficient cpu…")
        .not_on(Backend::Process, "there is one machine, and a limit above what it has is no limit")
        .not_on(Backend::Engine, "there is one machine, and a limit above what it has is no limit"),
    ]
}
