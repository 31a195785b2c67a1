//! The command `hops` without a cluster: files, errors, exit statuses.

use hops_k8s_tests::{Document, EXAMPLE, dir_with, hops};
use rstest::rstest;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `hops` in `dir`, where there is no cluster unless `kubeconfig` says so.
fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(hops())
        .args(arguments)
        .current_dir(dir)
        .env("HOME", dir)
        .env("XDG_CACHE_HOME", hops().with_file_name("cache"))
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

const POLICY: &str = "images: [ghcr.io/acme/**]\nmax-calls: 3\n";
const DENIED: &str = "PolicyDenied: the image \"bash:5\" is from docker.io/library/bash, which is none of this host's \
                      images (ghcr.io/acme/**); use one that is";

#[rstest]
#[case::flag(&["--policy", "policy.yaml"])]
#[case::configuration(&["--config", "config.yaml"])]
fn a_policy_holds_for_runs_and_batches(#[case] flags: &[&str]) {
    let files = [("policy.yaml", POLICY), ("config.yaml", "policy: policy.yaml"), ("a.json", r#"{"image": "bash:5"}"#)];
    let dir = dir_with(&files);
    for arguments in [&["run", "--local=process", "a.json"][..], &["run", "--local=process", "--batch", "a.json"]] {
        let (status, stdout, stderr) = run(dir.path(), &[arguments, flags].concat());
        let document: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        assert_eq!((status, &document["hops"]["error"]), (Some(1), &DENIED.into()));
    }
}

#[test]
fn check_prints_what_a_policy_means_and_a_wrong_one_lets_nothing_run() {
    let dir = dir_with(&[("good.yaml", POLICY), ("bad.yaml", "image: [a]"), ("a.json", r#"{"image": "bash:5"}"#)]);
    let line = |policy| {
        let (_, stdout, _) = run(dir.path(), &["check", "--json", "--policy", policy]);
        let lines: Vec<Value> = serde_json::from_str(&stdout).unwrap();
        lines.into_iter().find(|line| line["check"] == "policy").unwrap()
    };
    let good = line("good.yaml");
    assert_eq!(good["state"], "ok");
    let detail = good["detail"].as_str().unwrap();
    assert!(detail.starts_with("good.yaml: any namespace, images ghcr.io/acme/**, calls ≤ 3, inputs ≤ "), "{detail}");
    let wrong = "bad.yaml:1:1: unknown key \"image\", did you mean \"images\"?";
    assert_eq!((&line("bad.yaml")["state"], &line("bad.yaml")["detail"]), (&"missing".into(), &wrong.into()));
    let ran = run(dir.path(), &["run", "--local=process", "--policy", "bad.yaml", "a.json"]);
    assert_eq!(ran, (Some(2), String::new(), format!("hops: {wrong}\n")));
}

#[rstest]
#[case::no_file(&["--plugin", "no.wasm"], "the plugin no.wasm cannot be read: No such file or directory (os error 2)\n")]
#[case::no_plugin(&["--plugin", "a.json"], "a.json: the plugin is not a WebAssembly component: ")]
fn a_plugin_that_cannot_be_used_is_named(#[case] flags: &[&str], #[case] why: &str) {
    let dir = dir_with(&[("a.json", r#"{"image": "bash:5"}"#)]);
    let (status, _, stderr) = run(dir.path(), &[&["run", "--local=process", "a.json"], flags].concat());
    assert!(stderr.starts_with(&format!("hops: {why}")), "{stderr}");
    assert_eq!((status, stderr.lines().count()), (Some(2), 1), "{stderr}");
}

/// A kubeconfig for an API server at this port of this machine.
fn kubeconfig(port: u16) -> String {
    format!(
        "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: \
         'http://127.0.0.1:{port}'}}}}], users: [{{name: u, user: {{token: t}}}}], contexts: [{{name: c, context: \
         {{cluster: c, user: u}}}}]}}"
    )
}

#[test]
fn wrong_inputs_name_their_lines_and_reach_no_cluster() {
    let api_server = TcpListener::bind("127.0.0.1:0").unwrap();
    let wrong = EXAMPLE.replace("image =", "imge =").replace("\"bar\"", "5");
    let dir = dir_with(&[("a.hops", &wrong), ("config", &kubeconfig(api_server.local_addr().unwrap().port()))]);
    let (status, stdout, stderr) = run(dir.path(), &["run", "--kubeconfig", "config", "a.hops"]);
    assert_eq!(
        stderr,
        "hops: a.hops:3:5: unknown input \"imge\", did you mean \"image\"?\n\
         hops: a.hops:11:7: in_files[\"foo.txt\"]: expected a string, found a number\n"
    );
    assert_eq!(status, Some(1));
    assert!(Document::parse(&stdout).error().starts_with("InvalidInputs: unknown input \"imge\""), "{stdout}");
    api_server.set_nonblocking(true).unwrap();
    let nobody = api_server.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

#[rstest]
#[case::no_file(&["run", "no.hops"], 2, "hops: cannot read no.hops: No such file or directory (os error 2)\n")]
#[case::no_call(&["run", "none.hops"], 2, "hops: none.hops:1:1: there is no call; write call k8s_run { inputs = { image = \"…\" } }\n")]
#[case::another_call(&["run", "rum.hops"], 2, "hops: rum.hops:1:1: there is no call k8s_rum; known are k8s_run\n")]
#[case::no_cluster(
    &["run", "good.json"],
    3,
    "hops: no cluster is known: KUBECONFIG is not set, there is no ~/.kube/config, and this is not a pod in a cluster; \
     give a kubeconfig file with --kubeconfig\n"
)]
#[case::no_kubeconfig(
    &["run", "--kubeconfig", "no", "good.json"],
    3,
    "hops: the kubeconfig no cannot be used: failed to read kubeconfig from '\"no\"': No such file or directory (os error \
     2); give another with --kubeconfig, or another context with --context\n"
)]
#[case::no_context(
    &["run", "--kubeconfig", "config", "--context", "c2", "good.json"],
    3,
    "hops: the kubeconfig config cannot be used: failed to load current context: c2; give another with --kubeconfig, or \
     another context with --context\n"
)]
#[case::no_plugin(
    &["plugin", "inspect", "good.json"],
    2,
    "hops: the plugin is not a WebAssembly component: these bytes are not WebAssembly\n"
)]
fn a_file_that_cannot_be_run_is_an_error_that_says_what_to_do(
    #[case] arguments: &[&str],
    #[case] status: i32,
    #[case] message: &str,
) {
    let dir = dir_with(&[
        ("none.hops", ""),
        ("rum.hops", "call k8s_rum {\n}"),
        ("good.json", r#"{"image": "a"}"#),
        ("config", &kubeconfig(1)),
    ]);
    let (code, stdout, stderr) = run(dir.path(), arguments);
    assert_eq!((code, &*stdout), (Some(status), ""), "{stderr}");
    assert!(stderr.starts_with(message), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[rstest]
#[case::nothing(&[])]
#[case::unknown_option(&["run", "--frobnicate", "a.hops"])]
#[case::unknown_output(&["run", "-o", "yaml", "a.hops"])]
fn wrong_usage_ends_with_2_and_points_to_help(#[case] arguments: &[&str]) {
    let dir = dir_with(&[]);
    let (status, stdout, stderr) = run(dir.path(), arguments);
    assert_eq!((status, &*stdout), (Some(2), ""));
    assert!(stderr.contains("--help"), "{stderr}");
}

#[test]
fn inspect_prints_what_the_plugin_is() {
    let dir = dir_with(&[]);
    let (status, stdout, stderr) = run(dir.path(), &["plugin", "inspect", "--json"]);
    assert_eq!((status, &*stderr), (Some(0), ""));
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["name"], "k8s");
    assert_eq!(found["exports"][0], "hiphops:app/app@0.1.0");
    assert_eq!(found["imports"].as_array().unwrap().len(), 3);
    assert_eq!(found["handlers"][0]["inputs_schema"]["required"][0], "image");
    assert_eq!(found["sha256"].as_str().unwrap().len(), 64);
    let (status, text, _) = run(dir.path(), &["plugin", "inspect"]);
    assert_eq!(status, Some(0));
    for part in ["hiphops:k8s/pods@0.1.0", "handler k8s_run", "in_files", found["sha256"].as_str().unwrap()] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn inspect_names_an_import_that_no_host_grants() {
    let greedy = wat::parse_str(r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#).unwrap();
    let dir = dir_with(&[]);
    fs::write(dir.path().join("greedy.wasm"), greedy).unwrap();
    let (status, _, stderr) = run(dir.path(), &["plugin", "inspect", "greedy.wasm"]);
    assert_eq!(status, Some(2));
    assert!(
        stderr.starts_with("hops: the plugin imports wasi:sockets/tcp@0.2.0, which this host does not grant"),
        "{stderr}"
    );
}

#[rstest]
#[case::no_kubeconfig(&["check", "--json"], "kubeconfig", "KUBECONFIG is not set, there is no ~/.kube/config", "--kubeconfig")]
#[case::no_such_context(
    &["check", "--json", "--kubeconfig", "config", "--context", "c2"],
    "kubeconfig",
    "failed to load current context: c2",
    "--context"
)]
#[case::no_program_for_credentials(
    &["check", "--json", "--kubeconfig", "exec"],
    "kubeconfig",
    "no-such-program",
    "--kubeconfig"
)]
#[case::nobody_listens(
    &["check", "--json", "--kubeconfig", "config"],
    "cluster",
    "the API server at http://127.0.0.1:1/ does not answer",
    "check that the cluster runs"
)]
fn check_without_a_cluster_says_why_and_ends_with_3(
    #[case] arguments: &[&str],
    #[case] missing: &str,
    #[case] why: &str,
    #[case] fix: &str,
) {
    let program =
        "{exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-program, interactiveMode: Never}}";
    let exec = kubeconfig(1).replace("{token: t}", program);
    let dir = dir_with(&[("config", &kubeconfig(1)), ("exec", &exec)]);
    let (status, stdout, stderr) = run(dir.path(), arguments);
    assert_eq!((status, &*stderr), (Some(3), ""));
    let lines: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    let names: Vec<&str> = lines.iter().map(|line| line["check"].as_str().unwrap()).collect();
    assert_eq!(names, ["kubeconfig", "cluster", "rules", "pod", "policy", "key file", "local engine", "local process"]);
    let missed: Vec<&Value> = lines.iter().filter(|line| line["state"] == "missing").collect();
    let [line] = &missed[..] else { panic!("{lines:#?}") };
    assert_eq!(line["check"], missing);
    assert!(line["detail"].as_str().unwrap().contains(why), "{line:#}");
    assert!(line["fix"].as_str().unwrap().contains(fix), "{line:#}");
    // The name of the key in 0.1, for one more release.
    assert!(lines.iter().all(|line| line["mend"] == line["fix"]), "{lines:#?}");
}

#[test]
fn check_prints_a_table_with_fixes() {
    let dir = dir_with(&[("config", &kubeconfig(1))]);
    let (status, stdout, stderr) = run(dir.path(), &["check", "--kubeconfig", "config"]);
    assert_eq!((status, &*stderr), (Some(3), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], "ok       kubeconfig     the kubeconfig config, context c, user u, http://127.0.0.1:1/");
    assert!(lines[1].starts_with("missing  cluster        the API server at http://127.0.0.1:1/ does not answer: "));
    assert_eq!(lines[2], "                        → check that the cluster runs and that this is its address");
    assert_eq!(lines[3], "note     rules          not checked: the cluster does not answer");
}

#[test]
fn check_inspects_the_key_file_and_its_queue() {
    let nats = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nats.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in nats.incoming() {
            client.unwrap().write_all(b"INFO {\"version\": \"2.10.0\"}\r\n").unwrap();
        }
    });
    let key = format!(r#"{{"account_id":"acc","password":"s3cret","nats_domain":"{address}"}}"#);
    let dir = dir_with(&[("good.key", &base64(&key)), ("bad.key", "s3cret!")]);
    let mode = |mode| fs::set_permissions(dir.path().join("good.key"), fs::Permissions::from_mode(mode)).unwrap();
    let look = |file| {
        let (_, stdout, stderr) = run(dir.path(), &["check", "--json", "--keyfile", file]);
        assert!(!stdout.contains("s3cret") && stderr.is_empty(), "{stdout}{stderr}");
        let lines: Vec<Value> = serde_json::from_str(&stdout).unwrap();
        let line = |name: &str| lines.iter().find(|line| line["check"] == name).cloned().unwrap_or_default();
        [line("key file"), line("queue")]
    };
    mode(0o600);
    let [key_file, queue] = look("good.key");
    assert_eq!((&key_file["state"], &key_file["detail"]), (&"ok".into(), &"good.key, account acc".into()));
    assert_eq!((&queue["state"], &queue["detail"]), (&"ok".into(), &format!("NATS 2.10.0 at {address}").into()));
    mode(0o644);
    let [key_file, _] = look("good.key");
    assert_eq!((&key_file["state"], &key_file["fix"]), (&"note".into(), &"run chmod 600 good.key".into()));
    let [key_file, queue] = look("bad.key");
    assert_eq!((&key_file["state"], &queue), (&"missing".into(), &Value::Null));
    assert_eq!(key_file["fix"], "get it from hops again");
}

fn base64(text: &str) -> String {
    let mut encoder = Command::new("base64").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    encoder.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(encoder.wait_with_output().unwrap().stdout).unwrap()
}

/// The lines of a table of exit statuses: the number, then what it means.
fn statuses(text: &str) -> Vec<(String, String)> {
    let cells = text.lines().map(|line| line.trim_matches(|char: char| char == '|' || char.is_whitespace()));
    let rows = cells.filter_map(|line| line.split_once(|char: char| char == '|' || char.is_whitespace()));
    let rows = rows.filter(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    rows.map(|(number, meaning)| (number.into(), meaning.trim_matches([' ', '|']).into())).collect()
}

#[test]
fn help_and_the_readme_agree_on_exit_statuses() {
    let (_, help, _) = run(dir_with(&[]).path(), &["--help"]);
    let readme = include_str!("../README.md");
    let (_, table) = readme.split_once("| exit status | |\n").expect("the README has a table of exit statuses");
    let (table, _) = table.split_once("\n\n").expect("the table ends");
    let (_, help) = help.split_once("Exit status:\n").expect("help explains the exit statuses");
    assert_eq!(statuses(table), statuses(help));
    assert_eq!(statuses(help).len(), 5, "{help}");
}

#[rstest]
fn help_fits_a_screen(#[values("run", "check", "plugin", "completions")] command: &str) {
    let (status, stdout, _) = run(dir_with(&[]).path(), &[command, "--help"]);
    assert_eq!(status, Some(0));
    assert!(stdout.lines().count() <= 40, "{stdout}");
}

#[rstest]
fn completions_name_the_commands(#[values("bash", "zsh", "fish", "elvish", "powershell")] shell: &str) {
    let (status, stdout, stderr) = run(dir_with(&[]).path(), &["completions", shell]);
    assert_eq!((status, &*stderr), (Some(0), ""));
    for word in ["check", "inspect", "kubeconfig", "no-pod"] {
        assert!(stdout.contains(word), "{word} is missing");
    }
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let (status, stdout, stderr) = run(dir_with(&[]).path(), &["man"]);
    assert_eq!((status, &*stderr), (Some(0), ""));
    let pages: Vec<&str> =
        stdout.lines().filter_map(|line| line.strip_prefix(".TH ")?.split_whitespace().next()).collect();
    assert_eq!(
        pages,
        [
            "hops",
            "hops-run",
            "hops-start",
            "hops-start-server",
            "hops-start-worker",
            "hops-check",
            "hops-plugin",
            "hops-plugin-inspect",
            "hops-completions",
            "hops-man"
        ]
    );
}
