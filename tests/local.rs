//! The command `hops` without a cluster: calls that really run, as processes of this machine.

use hops_k8s_tests::{Document, EXAMPLE, dir_with, hops};
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(hops());
    command
        .arg("run")
        .args(arguments)
        .current_dir(dir)
        .env("XDG_CACHE_HOME", hops().with_file_name("cache"))
        .env_remove("KUBECONFIG");
    command
}

fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(dir, arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The inputs of a call that runs this script.
fn bash(script: &str) -> Value {
    json!({"image": "bash:5", "command": ["bash", "-c", script]})
}

#[test]
fn the_documents_example_gives_the_documents_result() {
    let dir = dir_with(&[("example.hops", EXAMPLE)]);
    let (status, stdout, stderr) = run(dir.path(), &["--local=process", "example.hops"]);
    assert_eq!(status, Some(0), "{stderr}");
    assert_eq!(Document::parse(&stdout).json(), &json!({"greeting": "Hello world!"}));
    assert!(stderr.starts_with("hops: the image is not used"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let (status, _, stderr) = run(dir.path(), &["--quiet", "--local=process", "example.hops"]);
    assert_eq!((status, &*stderr), (Some(0), ""));
}

/// Runs a shell script as the root of a user namespace that has no other user, as in a rootless container.
fn as_rootless_root(dir: &Path, script: &str) -> (Option<i32>, String) {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .arg(hops())
        .current_dir(dir)
        .env("XDG_CACHE_HOME", hops().with_file_name("cache"))
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_root_of_a_rootless_container_can_run_calls() {
    let inputs = bash("echo -n inside > /output/result.json");
    let dir = dir_with(&[("a.json", &inputs.to_string())]);
    let (status, stdout) = as_rootless_root(dir.path(), r#"exec "$0" run --quiet --local=process -o body a.json"#);
    assert_eq!((status, &*stdout), (Some(0), "inside"));
}

/// Runs a call as a user who is not root, may create no cgroups, and may open few files.
fn as_user(inputs: &Value) -> Document {
    let dir = dir_with(&[("a.json", &inputs.to_string())]);
    let program = dir.path().join("hops");
    fs::copy(hops(), &program).unwrap();
    let mut command = Command::new("setpriv");
    if Command::new("id").arg("-u").output().unwrap().stdout == b"0\n" {
        let chown = Command::new("chown").args(["-R", "4711:4711"]).arg(dir.path()).status().unwrap();
        assert!(chown.success());
        command.args(["--reuid", "4711", "--regid", "4711", "--clear-groups"]);
    }
    command.args(["sh", "-c", r#"ulimit -n 256; exec "$0" run --quiet --local=process a.json"#]).arg(&program);
    command.current_dir(dir.path());
    for name in ["HOME", "TMPDIR", "XDG_CACHE_HOME"] {
        command.env(name, dir.path());
    }
    let Output { stdout, stderr, .. } = command.output().unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("hops-pod-")), "{left:?}");
    assert!(!stdout.is_empty(), "{}", String::from_utf8(stderr).unwrap());
    Document::parse(&String::from_utf8(stdout).unwrap())
}

#[rstest]
#[case::memory(
    "perl -e '$x = \"x\" x 2e9'; echo survived",
    "OOMKilled: the container ran into its memory limit of 1Gi"
)]
#[case::memory_of_a_background_process("perl -e '$x = \"x\" x 2e9; sleep 60' & wait", "OOMKilled: ")]
#[case::processes(
    "perl -e 'for (1..3000) { defined(my $pid = fork) or exit 9; $pid or sleep(60), exit }'",
    "Error: container exited with code 9"
)]
#[case::output(
    "head -c 2G /dev/zero > /output/x; sleep 60",
    "Evicted: the output directory took up more than its limit of 1073741824 bytes"
)]
#[case::rights("mkdir -p /output/a/b && touch /output/a/b/c && chmod 0 /output/a/b /output/a", "")]
#[case::deep_directories("cd /output; perl -e 'for (1..1000) { mkdir \"d\"; chdir \"d\" }'", "")]
fn limits_hold_for_a_user_without_cgroups(#[case] script: &str, #[case] error: &str) {
    let mut inputs = bash(script);
    inputs["memory"] = "1Gi".into();
    let document = as_user(&inputs);
    assert!(document.error().starts_with(error), "{}", document.error());
    assert_eq!(document.error().is_empty(), error.is_empty(), "{}", document.error());
}

#[rstest]
#[case::users("user")]
#[case::networks("net")]
fn where_the_kernel_refuses_sandboxes_the_error_names_what_is_missing(#[case] kind: &str) {
    let dir = dir_with(&[("a.json", &bash("true").to_string())]);
    let script = r#"echo 0 > /proc/sys/user/max_KIND_namespaces
        exec setpriv --bounding-set -all --inh-caps=-all --no-new-privs "$0" run --quiet --local=process a.json"#;
    let (status, stdout) = as_rootless_root(dir.path(), &script.replace("KIND", kind));
    assert_eq!(status, Some(1));
    let error = Document::parse(&stdout).error().to_owned();
    assert!(error.starts_with("Error: no sandbox: the kernel refuses a user namespace"), "{error}");
    let advice = format!("\"sysctl -w user.max_{kind}_namespaces=15000\", as root, allows it");
    assert!(error.ends_with(&advice), "{error}");
}

const THREE: &str = r#"
call k8s_run {
  name = "hello"
  inputs = {
    image = "bash:5"
    command = ["bash", "-c", "echo log of hello; echo -n 'Hello ${who}' > /output/result.json"]
  }
}
call k8s_run {
  inputs = { image = "bash:5", command = ["bash", "-c", "cat /input/event.json > /output/result.json"]
    in_files = { "event.json" = jsonencode(event) } }
}
call k8s_run {
  name = "fails"
  inputs = { image = "bash:5", command = ["bash", "-c", "echo -n some > /output/result.json; exit 4"] }
}
"#;

#[test]
fn several_calls_run_together_and_give_an_object_by_their_names() {
    let dir = dir_with(&[("three.hops", THREE), ("event.json", r#"{"b": 1, "a": [true]}"#)]);
    let arguments = ["-q", "--local=process", "--set", "who=wörld", "--event", "event.json", "--logs", "three.hops"];
    let (status, stdout, stderr) = run(dir.path(), &arguments);
    assert_eq!((status, &*stderr), (Some(1), "hello: log of hello\n"));
    let found: serde_json::Map<String, Value> = serde_json::from_str(&stdout).unwrap();
    assert!(stdout.find("\"hello\"").unwrap() < stdout.find("\"k8s_run1\"").unwrap());
    assert_eq!(found["hello"]["body"], "Hello wörld");
    assert!(stdout.contains(r#""json": {"b":1,"a":[true]}"#), "{stdout}");
    assert_eq!(found["fails"]["hops"]["error"], "Error: container exited with code 4");
    assert_eq!(found.len(), 3);

    let one = ["-q", "--local=process", "--set", "who=me", "--event", "event.json", "--call", "hello", "-o", "body"];
    let (status, stdout, _) = run(dir.path(), &[&one[..], &["three.hops"]].concat());
    assert_eq!((status, &*stdout), (Some(0), "Hello me"));
}

#[rstest]
#[case::no_such_call(&["--call", "helo", "--set", "who=a", "--event", "event.json", "three.hops"], "hops: three.hops has no call \"helo\"; choose one of \"hello\", \"k8s_run1\", \"fails\"\n")]
#[case::body_of_many(&["-o", "body", "--set", "who=a", "--event", "event.json", "three.hops"], "hops: -o body prints one result; choose one with --call NAME\n")]
#[case::undefined(
    &["three.hops"],
    "hops: three.hops:6:67: undefined variable `who`; give it with --set who=…\n\
     hops: three.hops:11:44: undefined variable `event`; give it with --event FILE.json\n"
)]
#[case::no_event(&["--event", "three.hops", "three.hops"], "hops: three.hops: not valid JSON: expected value at line 2 column 1\n")]
fn what_cannot_be_run_is_an_error_that_says_what_to_do(#[case] arguments: &[&str], #[case] message: &str) {
    let dir = dir_with(&[("three.hops", THREE), ("event.json", "{}")]);
    let (status, stdout, stderr) = run(dir.path(), &[&["--local=process"], arguments].concat());
    assert_eq!((status, &*stdout, &*stderr), (Some(2), "", message));
}

#[rstest]
#[case::no_name(&["--set", "=a", "a.hops"], "cannot be the name of a variable")]
#[case::event(&["--set", "event=a", "a.hops"], "--event FILE.json")]
#[case::no_value(&["--set", "a", "a.hops"], "expected NAME=VALUE")]
#[case::batch_and_file(&["--batch", "a.jsonl", "a.hops"], "cannot be used with")]
#[case::resume_nothing(&["--batch", "a.jsonl", "--resume"], "--out")]
#[case::no_calls_at_a_time(&["--batch", "a.jsonl", "--concurrency", "0"], "expected a number from 1 to 10000")]
fn wrong_usage_ends_with_2(#[case] arguments: &[&str], #[case] part: &str) {
    let (status, _, stderr) = run(dir_with(&[]).path(), arguments);
    assert_eq!(status, Some(2));
    assert!(stderr.contains(part), "{stderr}");
}

/// The results in a file: id, error, body.
fn results(text: &str) -> Vec<(Value, String, String)> {
    let parse = |line| {
        let Document(document) = Document::parse(line);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (document["id"].clone(), text(&document["hops"]["error"]), text(&document["body"]))
    };
    text.lines().map(parse).collect()
}

#[test]
fn a_batch_gives_a_line_for_each_line() {
    let lines = [
        bash("echo -n one > /output/result.json").to_string(),
        bash("exit 5").to_string(),
        String::new(),
        r#"{"imge": "a"}"#.into(),
        "nonsense".into(),
        bash(r#"printf '{\n"a": 1.10\n}' > /output/result.json"#).to_string(),
    ];
    let dir = dir_with(&[("in.jsonl", &lines.join("\n"))]);
    let (status, stdout, stderr) = run(dir.path(), &["--local=process", "--batch", "in.jsonl", "--concurrency", "2"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stdout.contains(r#"{"id":6,"#) && stdout.contains(r#""json":{ "a": 1.10 }"#), "{stdout}");
    let mut found = results(&stdout);
    found.sort_by_key(|(id, ..)| id.as_u64());
    let found: Vec<(u64, &str, &str)> =
        found.iter().map(|(id, error, body)| (id.as_u64().unwrap(), &**error, &**body)).collect();
    let nonsense = "InvalidInputs: inputs: not valid JSON: expected ident at line 1 column 2";
    assert_eq!(
        found,
        [
            (1, "", "one"),
            (2, "Error: container exited with code 5", ""),
            (4, "InvalidInputs: unknown input \"imge\", did you mean \"image\"?", ""),
            (5, nonsense, ""),
            (6, "", "")
        ]
    );
    let summary = stderr.lines().last().unwrap();
    assert!(
        summary.starts_with("hops: 5 of 5 calls done in ") && summary.ends_with("2 completed, 3 errored"),
        "{stderr}"
    );
}

/// A folder with so many inputs in a file, and what each has to give.
fn inputs(count: usize) -> (tempfile::TempDir, BTreeSet<(String, String)>) {
    let line = |number: usize| {
        let mut line = bash(&format!("echo -n hello {number} > /output/result.json"));
        line["id"] = format!("call {number}").into();
        format!("{line}\n")
    };
    let dir = dir_with(&[("in.jsonl", &(0..count).map(line).collect::<String>())]);
    (dir, (0..count).map(|number| (format!("call {number}"), format!("hello {number}"))).collect())
}

/// Each input has its result, and once.
fn check_results(file: &Path, expected: &BTreeSet<(String, String)>) {
    let found = results(&fs::read_to_string(file).unwrap());
    assert_eq!(found.len(), expected.len());
    let found = found.into_iter().map(|(id, _, body)| (id.as_str().unwrap().to_owned(), body)).collect();
    let missing: Vec<_> = expected.difference(&found).take(5).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_batch_that_is_killed_goes_on_with_resume_and_gives_each_result_once() {
    let (dir, expected) = inputs(300);
    let out = dir.path().join("out.jsonl");
    let arguments = ["--local=process", "--batch", "in.jsonl", "--out", "out.jsonl", "--concurrency", "4"];
    let done = || fs::read_to_string(&out).unwrap_or_default().lines().count();
    for (signal, enough) in [("KILL", 50), ("INT", 120)] {
        let resume: &[&str] = if signal == "INT" { &["--resume"] } else { &[] };
        let mut child = command(dir.path(), &[&arguments, resume].concat()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while done() < enough {
            assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        if signal == "INT" {
            assert_eq!(output.status.code(), Some(130));
            assert!(stderr.ends_with(" skipped; go on with --resume\n"), "{stderr}");
        }
        assert!(done() < 300);
    }
    // As if the process had been killed in the middle of a write.
    fs::write(&out, fs::read_to_string(&out).unwrap() + "{\"id\":\"call 9").unwrap();
    let (status, _, stderr) = run(dir.path(), &arguments);
    assert_eq!(status, Some(2));
    assert_eq!(stderr, "hops: out.jsonl is not empty; go on with --resume, or name another file with --out\n");
    let (status, stdout, stderr) = run(dir.path(), &[&arguments[..], &["--resume"]].concat());
    assert_eq!((status, &*stdout), (Some(0), ""), "{stderr}");
    check_results(&out, &expected);
}

#[test]
fn a_batch_of_a_thousand_keeps_memory_flat() {
    let (dir, expected) = inputs(1000);
    let arguments = ["-q", "--local=process", "--batch", "in.jsonl", "--out", "out.jsonl", "--concurrency", "8"];
    let mut child = command(dir.path(), &arguments).spawn().unwrap();
    let out = dir.path().join("out.jsonl");
    let mut peaks = vec![];
    let start = Instant::now();
    for enough in [200, 900] {
        while fs::read_to_string(&out).unwrap_or_default().lines().count() < enough {
            assert!(start.elapsed() < Duration::from_secs(300), "it takes more than 300 s");
            assert!(child.try_wait().unwrap().is_none(), "it ended early");
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peaks.push(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
    }
    assert!(child.wait().unwrap().success());
    check_results(&out, &expected);
    println!("peak memory after 200 and 900 calls: {peaks:?} kB");
    assert!(peaks[1] < peaks[0] + 8 * 1024, "{peaks:?} kB");
}
