//! The built component in the host, on pods that play a script: each way in which a pod can end, and the result.

use hops_k8s::event::{Event, Events};
use hops_k8s::plugin::{CallCtx, CallError, EMBEDDED, Limits, LoadError, Plugin, Runtime};
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::pods::{Cause, ContainerState, Error, NoPods, Phase, PodSpec, PodStatus, Refusal, Rule};
use hops_k8s::policy::Policy;
use hops_k8s::runner::Runner;
use hops_k8s_tests::{Document, call, call_with, component_of, plugin, plugins, policy, runner, runtime};
use rstest::rstest;
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// Runs a call on a pod that plays `script`, and checks that nothing is left of it.
async fn play(script: Script, inputs: Value) -> Document {
    let pods = Arc::new(Memory::new(move |_| script.clone()));
    let text = call(pods.clone(), &inputs).await.unwrap();
    assert_eq!(pods.live(), 0, "a pod is left");
    Document::parse(&text)
}

fn hello() -> Value {
    json!({"image": "bash:5"})
}

fn with(change: impl FnOnce(&mut PodStatus), mut status: PodStatus) -> PodStatus {
    change(&mut status);
    status
}

#[tokio::test(start_paused = true)]
async fn every_case_means_what_it_means_elsewhere() {
    hops_k8s_tests::cases::check_memory().await;
}

#[rstest]
#[case::object("result.json", r#"{"b":1.10,"a":12345678901234567890123}"#, true)]
#[case::array("result.txt", "[1, 2]", true)]
#[case::scalar_in_a_json_file("x/y.json", "\"text\"", true)]
#[case::scalar_elsewhere("result.txt", "42", false)]
#[case::null("result.json", "null", false)]
#[case::plain_text("result.json", "hello\r\n", false)]
#[case::empty("result.json", "", false)]
#[tokio::test(start_paused = true)]
async fn a_container_that_succeeds_gives_its_file(#[case] path: &str, #[case] content: &str, #[case] is_json: bool) {
    let script = Script::exits(0).file(path, content);
    let pods = Arc::new(Memory::new(move |_| script.clone()));
    let text = call(pods, &json!({"image": "a", "out_path": path})).await.unwrap();
    let document = Document::parse(&text);
    assert_eq!(document.error(), "");
    if is_json {
        // The file's own text: to parse it and print it again would change it.
        assert!(text.ends_with(&format!(r#""body":"","json":{content}}}"#)), "{text}");
    } else {
        assert_eq!(document.body(), content);
        assert_eq!(document.json(), &Value::Null);
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_succeeds_without_a_file_gives_nothing() {
    let document = play(Script::exits(0), hello()).await;
    assert_eq!((document.error(), document.body(), document.json()), ("", "", &Value::Null));
}

#[rstest]
#[case::exit_code(
    PodStatus::exited(3, "Error", "first\nno such table\n"),
    "Error: container exited with code 3\nfirst\nno such table"
)]
#[case::signal(PodStatus::exited(137, "Error", ""), "Error: container exited with code 137 (SIGKILL)")]
#[case::out_of_memory(
    PodStatus::exited(137, "OOMKilled", ""),
    "OOMKilled: the container ran into its memory limit of 128Mi; raise \"memory\""
)]
#[case::out_of_memory_in_a_child(
    PodStatus::exited(0, "OOMKilled", ""),
    "OOMKilled: the container ran into its memory limit of 128Mi; raise \"memory\""
)]
#[case::evicted(
    with(|s| { s.phase = Phase::Failed; s.cause = Cause::new("Evicted", "The node was low on resource: memory.") }, PodStatus::exited(137, "Error", "")),
    "Evicted: The node was low on resource: memory."
)]
#[case::deleted(
    with(|s| s.deleted = true, PodStatus::running()),
    "PodDeleted: somebody deleted the pod before it was done"
)]
#[tokio::test(start_paused = true)]
async fn a_container_that_fails_gives_the_reason_and_its_file(#[case] end: PodStatus, #[case] error: &str) {
    let script =
        Script::default().at(100, PodStatus::running()).at(200, end).file("result.json", r#"{"partial":true}"#);
    let document = play(script, hello()).await;
    assert_eq!(document.error(), error);
    assert_eq!(document.json(), &json!({"partial": true}));
}

#[rstest]
#[case::invalid_image(
    PodStatus::waiting("InvalidImageName", "couldn't parse image name"),
    0,
    "InvalidImageName: couldn't parse image name"
)]
#[case::no_such_image(PodStatus::waiting("ErrImagePull", "not found"), 20, "ErrImagePull: not found")]
#[case::no_such_secret(
    PodStatus::waiting("CreateContainerConfigError", "secret \"s\" not found"),
    20,
    "CreateContainerConfigError: secret \"s\" not found"
)]
#[case::no_such_command(
    PodStatus::exited(128, "StartError", "exec: \"nope\": executable file not found in $PATH"),
    0,
    "StartError: exec: \"nope\": executable file not found in $PATH"
)]
#[case::result_server_crashes(
    with(|s| s.sidecar = Some(ContainerState::Waiting(Cause::new("CrashLoopBackOff", "back-off"))), PodStatus::waiting("ContainerCreating", "")),
    0,
    "CrashLoopBackOff: back-off"
)]
#[case::no_room(
    with(|s| s.unschedulable = Some("0/3 nodes are available: 3 Insufficient cpu.".into()), PodStatus::waiting("", "")),
    120,
    "StartTimeout: the container did not start within 2m: 0/3 nodes are available: 3 Insufficient cpu."
)]
#[case::silence(
    PodStatus::waiting("ContainerCreating", ""),
    120,
    "StartTimeout: the container did not start within 2m: its image was still being pulled, or its files mounted (ContainerCreating)"
)]
#[case::node_gone(
    with(|s| { s.deleted = true; s.disruption = Some(Cause::new("DeletionByTaintManager", "node n1 is gone")) }, PodStatus::waiting("", "")),
    0,
    "NodeLost: node n1 is gone"
)]
#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_start_fails_in_time(
    #[case] status: PodStatus,
    #[case] seconds: u64,
    #[case] error: &str,
) {
    let start = tokio::time::Instant::now();
    let document = play(Script::default().at(0, status), hello()).await;
    assert_eq!(document.error(), error);
    assert_eq!(start.elapsed().as_secs(), seconds);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_runs_too_long_is_ended_with_the_end_of_its_log() {
    let mut script = Script::default().at(1000, PodStatus::running()).file("result.json", "so far");
    script.log = "one\ntwo\n".into();
    let start = tokio::time::Instant::now();
    let document = play(script, json!({"image": "a", "timeout": "10s"})).await;
    assert_eq!(
        document.error(),
        "Timeout: the container ran longer than 10s and was ended; raise \"timeout\" if it needs longer\none\ntwo"
    );
    assert_eq!(document.body(), "so far");
    assert_eq!(start.elapsed().as_secs(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_log_without_line_breaks_gives_its_end() {
    let mut script = Script::default().at(0, PodStatus::running());
    script.log = "ü".repeat(2 * MIB) + "the end";
    let document = play(script, json!({"image": "a", "timeout": "10s"})).await;
    assert!(document.error().starts_with("Timeout: ") && document.error().ends_with("the end"));
    assert!(document.error().len() < MIB + 200, "{}", document.error().len());
}

#[tokio::test(start_paused = true)]
async fn a_call_lives_no_longer_than_the_host_allows() {
    let pods = Arc::new(Memory::new(|_| Script::default().at(0, PodStatus::running())));
    let start = tokio::time::Instant::now();
    let error = call(pods.clone(), &json!({"image": "a", "timeout": "1000years"})).await.unwrap_err();
    assert!(matches!(error, CallError::Time(_)), "{error}");
    assert_eq!(start.elapsed(), Limits::default().time);
    assert_eq!((pods.created().len(), pods.live()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_not_utf_8_is_an_error_that_says_where() {
    let document = play(Script::exits(0).file("result.json", b"ab\xffc".to_vec()), hello()).await;
    assert_eq!(document.error(), "InvalidResult: the result file is not UTF-8: 4 bytes, the first bad one at offset 2");
    assert_eq!((document.body(), document.json()), ("", &Value::Null));
}

#[rstest]
#[case::at_the_limit(8 * MIB, "")]
#[case::over_the_limit(8 * MIB + 1, "ResultTooLarge: result.json is 8388609 bytes, more than the host's limit of 8388608 bytes")]
#[tokio::test(start_paused = true)]
async fn a_file_is_whole_or_an_error(#[case] size: usize, #[case] error: &str) {
    // NUL takes up the most room in JSON, so this is the largest document.
    let document = play(Script::exits(0).file("result.json", vec![0; size]), hello()).await;
    assert_eq!(document.error(), error);
    assert_eq!(document.body().len(), if error.is_empty() { size } else { 0 });
}

#[rstest]
#[case::rbac(
    Error::Forbidden(Refusal {
        message: "pods is forbidden: User \"u\" cannot create resource \"pods\"".into(),
        missing: Some(Rule { verb: "create".into(), resource: "pods".into(), namespace: "n".into() }),
    }),
    "Forbidden: pods is forbidden: User \"u\" cannot create resource \"pods\"; what is missing is a Role in namespace \
     \"n\" with the rule {apiGroups: [\"\"], resources: [\"pods\"], verbs: [\"create\"]}"
)]
#[case::pod_security(
    Error::Forbidden(Refusal { message: "violates PodSecurity \"restricted\"".into(), missing: None }),
    "Forbidden: violates PodSecurity \"restricted\""
)]
#[case::quota(Error::QuotaExceeded("exceeded quota: q".into()), "QuotaExceeded: exceeded quota: q")]
#[case::invalid(Error::Invalid("spec.x: invalid".into()), "InvalidInputs: spec.x: invalid")]
#[case::unreachable(Error::Unavailable("no answer from https://h".into()), "ClusterUnavailable: no answer from https://h")]
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_refused_gives_the_reason(#[case] refused: Error, #[case] error: &str) {
    let document = play(Script::refused(refused), hello()).await;
    assert_eq!(document.error(), error);
}

#[rstest]
#[case::while_watching(Script::default().lost(Error::Unavailable("gone for 5 minutes".into())), "ClusterUnavailable: gone for 5 minutes")]
#[case::while_reading(
    Script::exits(0).unreadable("result.json", Error::Unavailable("connection refused".into())),
    "ResultUnavailable: result.json could not be read: connection refused"
)]
#[case::with_its_pod(
    Script::exits(0).unreadable("result.json", Error::Gone("no such pod".into())),
    "PodDeleted: no such pod"
)]
#[tokio::test(start_paused = true)]
async fn a_result_that_is_lost_is_an_error(#[case] script: Script, #[case] error: &str) {
    assert_eq!(play(script, hello()).await.error(), error);
}

#[tokio::test]
async fn bad_inputs_are_a_result_with_every_problem_and_reach_no_pod() {
    let pods = Arc::new(Memory::new(|_| Script::exits(0)));
    let inputs = json!({"imge": "a", "in_files": {"a.txt": 1}});
    let document = Document::parse(&call(pods.clone(), &inputs).await.unwrap());
    assert_eq!(
        document.error(),
        "InvalidInputs: unknown input \"imge\", did you mean \"image\"?; in_files[\"a.txt\"]: expected a string, found a \
         number"
    );
    assert_eq!(pods.created(), []);
}

#[rstest]
#[case::service_account(json!({"service_account": "admin"}))]
#[case::image_pull_secrets(json!({"image_pull_secrets": ["s"]}))]
#[case::node_selector(json!({"node_selector": {"a": "b"}}))]
#[tokio::test]
async fn what_the_policy_does_not_allow_is_denied(#[case] mut inputs: Value) {
    inputs["image"] = "a".into();
    let pods = Arc::new(Memory::new(|_| Script::exits(0)));
    let document = Document::parse(&call(pods.clone(), &inputs).await.unwrap());
    assert!(document.error().starts_with("PolicyDenied: this host does not allow "), "{}", document.error());
    assert_eq!(pods.created(), []);
}

#[rstest]
#[case::at_the_limit(16 * MIB, "")]
#[case::over_the_limit(16 * MIB + 1, "InvalidInputs: in_files: 16777217 bytes in all, more than the host's limit of 16777216 bytes")]
#[tokio::test(start_paused = true)]
async fn input_files_have_a_limit(#[case] size: usize, #[case] error: &str) {
    let document = play(Script::exits(0), json!({"image": "a", "in_files": {"a": "x".repeat(size)}})).await;
    assert_eq!(document.error(), error);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_what_the_inputs_ask_for() {
    let pods = Arc::new(Memory::new(|_| Script::exits(0)));
    let inputs = json!({
        "image": "bash:5", "command": ["bash"], "args": ["-c", "true"], "namespace": "team", "in_dir": "/in",
        "in_files": {"a/b.txt": "x"}, "out_dir": "/out", "cpu": 1, "memory": "1Gi", "skip_cleanup": true,
        "env": {"A": "b"},
    });
    Document::parse(&call(pods.clone(), &inputs).await.unwrap());
    let created: Vec<PodSpec> = pods.created();
    let [spec] = &*created else { panic!("{created:?}") };
    assert_eq!((&*spec.image, &*spec.namespace, spec.keep), ("bash:5", "team", true));
    assert_eq!((&spec.command[..], &spec.args[..]), (&["bash".into()][..], &["-c".into(), "true".into()][..]));
    assert_eq!((&*spec.cpu, &*spec.memory), ("1", "1Gi"));
    assert_eq!((&*spec.input_dir, &*spec.output_dir), ("/in", "/out"));
    assert_eq!(spec.input_files[0].path, "a/b.txt");
    assert!(spec.env.contains(&("A".into(), "b".into())));
    assert_eq!(pods.live(), 1, "skip_cleanup keeps the pod");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_call_deletes_its_pod() {
    let pods = Arc::new(Memory::new(|_| Script::default().at(0, PodStatus::running())));
    let inputs = hello();
    let cancelled = tokio::time::timeout(Duration::from_secs(5), call(pods.clone(), &inputs)).await;
    assert!(cancelled.is_err(), "the container runs for ever");
    assert_eq!((pods.created().len(), pods.live()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_run_side_by_side_and_keep_their_results_apart() {
    let pods = Arc::new(Memory::new(|spec| Script::exits(0).file("result.json", format!("[{:?}]", spec.image))));
    let calls: Vec<_> = (0..500)
        .map(|number| {
            let pods = pods.clone();
            tokio::spawn(async move { call(pods, &json!({"image": format!("image-{number}")})).await })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        let document = Document::parse(&call.await.unwrap().unwrap());
        assert_eq!(document.json(), &json!([format!("image-{number}")]));
    }
    assert_eq!(pods.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_sends_its_events_and_its_log() {
    let mut script = Script::exits(0);
    script.log = "working\n".into();
    let (events, mut receiver) = Events::channel(true);
    call_with(Arc::new(Memory::new(move |_| script.clone())), events, &hello()).await.unwrap();
    let mut heard = vec![];
    while let Some(event) = receiver.recv().await {
        heard.push(match event {
            Event::Created { pod, .. } => format!("created {pod}"),
            Event::Status(status) => format!("{:?}", status.phase),
            Event::Reading { path } => format!("reading {path}"),
            Event::Log(bytes) => String::from_utf8(bytes).unwrap(),
            Event::Deleting => "deleting".into(),
            other => format!("{other:?}"),
        });
    }
    heard.retain(|event| event != "Phase::Pending" && event != "Phase::Running");
    assert_eq!(heard, ["created memory-1", "working\n", "reading result.json", "deleting"]);
}

/// Runs three calls at once, and returns the most pods that lived at a time.
async fn most_pods_of_three_calls(plugin: &Plugin, policy: Policy) -> usize {
    let pods = Arc::new(Memory::new(|_| Script::exits(0).file("result.json", "[1]")));
    let (policy, inputs) = (Arc::new(policy), hello().to_string());
    let call = || async {
        let result = plugin.call(CallCtx::new(pods.clone(), policy.clone()), "run", &inputs).await.unwrap();
        assert_eq!(result.outcome(), "Completed");
    };
    let mut most = 0;
    let watch = async {
        loop {
            most = most.max(pods.live());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = async { tokio::join!(call(), call(), call()) } => {}
        () = watch => {}
    }
    assert_eq!((pods.created().len(), pods.live()), (3, 0));
    most
}

#[rstest]
#[case::no_limit_is_reached(3, None, 3)]
#[case::of_the_runtime(2, None, 2)]
#[case::of_the_policy(3, Some(1), 1)]
#[tokio::test(start_paused = true)]
async fn a_call_over_a_limit_of_calls_waits_and_is_then_run(
    #[case] runtime_calls: u32,
    #[case] policy_calls: Option<usize>,
    #[case] most: usize,
) {
    let mut limits = Limits::default();
    limits.calls = runtime_calls;
    let plugin = runtime(limits).load(EMBEDDED).unwrap();
    let policy = policy(|policy| policy.max_calls = policy_calls.and_then(NonZeroUsize::new));
    assert_eq!(most_pods_of_three_calls(&plugin, policy).await, most);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_answers_questions_while_the_limit_of_calls_is_reached() {
    let mut limits = Limits::default();
    limits.calls = 1;
    let plugin = runtime(limits).load(EMBEDDED).unwrap();
    let pods = Arc::new(Memory::new(|_| Script::default().at(0, PodStatus::running())));
    let call = || plugin.call(CallCtx::new(pods.clone(), Arc::new(Policy::default())), "run", r#"{"image": "a"}"#);
    let questions = async {
        while pods.live() == 0 {
            tokio::task::yield_now().await;
        }
        let waits = tokio::time::timeout(Duration::from_secs(1), call()).await;
        assert!(waits.is_err(), "the limit is not reached");
        assert_eq!(plugin.describe().await.unwrap().name, "k8s");
        assert_eq!(plugin.check("run", "{}").await.unwrap().len(), 1);
    };
    tokio::select! {
        ended = call() => panic!("the container runs for ever: {ended:?}"),
        answered = tokio::time::timeout(Duration::from_secs(10), questions) => answered.unwrap(),
    }
    assert_eq!(pods.created().len(), 1);
}

#[tokio::test]
async fn the_plugin_says_what_it_is() {
    let description = plugin().describe().await.unwrap();
    assert_eq!(description.name, "k8s");
    assert_eq!(description.version, env!("CARGO_PKG_VERSION"));
    let [run] = &description.handlers[..] else { panic!("{description:?}") };
    assert_eq!(run.name, "run");
    let schema: Value = serde_json::from_str(&run.inputs_schema).unwrap();
    assert_eq!(schema["required"], json!(["image"]));
}

#[tokio::test]
async fn an_unknown_handler_is_refused_with_those_that_are_known() {
    let ctx = CallCtx::new(Arc::new(NoPods), Arc::new(Policy::default()));
    let error = plugin().call(ctx, "rum", "{}").await.unwrap_err();
    assert!(matches!(error, CallError::UnknownHandler(_)));
    assert_eq!(error.to_string(), "the app k8s has no handler \"rum\"; it has \"run\"");
}

#[tokio::test(start_paused = true)]
async fn a_pod_lives_no_longer_than_the_policy_allows() {
    let pods = Arc::new(Memory::new(|_| {
        let mut ended = PodStatus::exited(137, "Error", "");
        (ended.phase, ended.cause) = (Phase::Failed, Cause::new("DeadlineExceeded", "the cluster's words"));
        Script::default().at(0, PodStatus::running()).at(600_000, ended)
    }));
    let policy = policy(|policy| policy.max_timeout = Some(Duration::from_secs(600)));
    let runner = runner(pods.clone(), policy).await;
    let inputs = [json!({"image": "a"}), json!({"image": "a", "timeout": "1m"})];
    let [unlimited, limited] = inputs.map(|inputs| inputs.to_string());
    let document = Document::parse(runner.call(runner.ctx(), "k8s", "run", &unlimited).await.text());
    assert_eq!(
        document.error(),
        "Timeout: the pod was ended after 10m, the longest that this host's policy allows (max-timeout); shorten its work, or raise the \
         limit"
    );
    let document = Document::parse(runner.call(runner.ctx(), "k8s", "run", &limited).await.text());
    assert!(document.error().starts_with("Timeout: the container ran longer than 1m"), "{document:?}");
    let lifetimes: Vec<u64> = pods.created().iter().map(|spec| spec.lifetime_ms).collect();
    assert_eq!(lifetimes, [600_000, (60 + 120 + 300) * 1000]);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_its_turn_and_its_start_timeout_does_not_run_meanwhile() {
    let pods = Arc::new(Memory::new(|_| {
        Script::default().at(0, PodStatus::running()).at(600_000, PodStatus::exited(0, "Completed", ""))
    }));
    let policy = policy(|policy| policy.max_calls_per_namespace = NonZeroUsize::new(1));
    let runner = runner(pods.clone(), policy).await;
    let call = |namespace| {
        let (runner, inputs) = (runner.clone(), json!({"image": "a", "namespace": namespace}).to_string());
        async move { Document::parse(runner.call(runner.ctx(), "k8s", "run", &inputs).await.text()) }
    };
    let most = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        pods.live()
    };
    let (a, another_a, b, most) = tokio::join!(call("a"), call("a"), call("b"), most);
    assert_eq!([a.error(), another_a.error(), b.error()], [""; 3]);
    assert_eq!((most, pods.created().len(), pods.live()), (2, 3, 0));
}

#[tokio::test]
async fn a_plugin_that_fails_has_a_document_that_says_so() {
    let mut limits = Limits::default();
    limits.pod_calls = 1;
    let plugin = Arc::new(runtime(limits).load(EMBEDDED).unwrap());
    let pods = Arc::new(Memory::new(|_| Script::exits(0)));
    let runner = Runner::new(plugins([plugin]).await, pods, Policy::default());
    for (app, handler, error) in [
        ("k8s", "run", "PluginFailed: the plugin failed: it asked more of its pods than any call needs"),
        ("k8s", "rum", "UnknownHandler: the app k8s has no handler \"rum\""),
        ("k9s", "run", "UnknownHandler: this host has no app \"k9s\"; it has k8s"),
    ] {
        let document = Document::parse(runner.call(runner.ctx(), app, handler, r#"{"image": "a"}"#).await.text());
        assert!(document.error().starts_with(error), "{document:?}");
    }
}

#[tokio::test]
async fn problems_have_the_path_of_what_is_wrong() {
    let problems = plugin().check("run", r#"{"image": "a", "command": ["b", 1]}"#).await.unwrap();
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!(problem.path, ["command", "1"]);
    assert_eq!(problem.message, "command[1]: expected a string, found a number");
}

#[test]
fn the_component_imports_pods_and_clocks_and_nothing_else() {
    let found = plugin().inspection();
    assert_eq!(
        found.imports,
        ["wasi:clocks/wall-clock@0.2.0", "wasi:clocks/monotonic-clock@0.2.0", "hiphops:k8s/pods@0.1.0"]
    );
    assert_eq!(found.exports, ["hiphops:app/app@0.1.0"]);
}

#[test]
fn a_component_that_imports_more_is_refused() {
    let wat = r#"(component (import "wasi:filesystem/types@0.2.0" (instance)) (import "wasi:clocks/wall-clock@0.2.9" (instance)))"#;
    let error = runtime(Limits::default()).load(&wat::parse_str(wat).unwrap()).expect_err("it wants files");
    assert!(matches!(error, LoadError::NotGranted(_)));
    assert_eq!(
        error.to_string(),
        "the plugin imports wasi:filesystem/types@0.2.0, which this host does not grant; it grants hiphops:k8s/pods, \
         wasi:clocks/wall-clock, wasi:clocks/monotonic-clock"
    );
}

#[rstest]
#[case::nothing(b"".to_vec(), "the plugin is not a WebAssembly component: ")]
#[case::text(b"hello".to_vec(), "the plugin is not a WebAssembly component: ")]
#[case::a_core_module(wat::parse_str("(module)").unwrap(), "the plugin is not a WebAssembly component: ")]
#[case::cut_off(EMBEDDED[..EMBEDDED.len() / 2].to_vec(), "the plugin is not a WebAssembly component: ")]
#[case::another_component(wat::parse_str("(component)").unwrap(), "the plugin was built against another version of hiphops:k8s than this host: ")]
fn a_file_that_is_not_a_plugin_is_refused(#[case] bytes: Vec<u8>, #[case] error: &str) {
    let message = Plugin::load(&bytes).expect_err("it is not a plugin").to_string();
    assert!(message.starts_with(error), "{message}");
}

/// The error of `describe`, for a plugin whose `describe` runs this code.
async fn describe_of(body: &str) -> String {
    let module = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "hiphops:app/app@0.1.0#describe") (result i32) {body} i32.const 0)
            (func (export "hiphops:app/app@0.1.0#check") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "hiphops:app/app@0.1.0#call") (param i32 i32 i32 i32) (result i32) unreachable))"#
    );
    let mut limits = Limits::default();
    limits.cpu_time = Duration::from_millis(200);
    runtime(limits).load(&component_of(&module)).unwrap().describe().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_plugin_that_computes_for_ever_is_ended() {
    let error = describe_of("(loop br 0)").await;
    assert_eq!(error, "the plugin used up its CPU time; this is a defect of the plugin, not of the call's container");
}

#[tokio::test]
async fn a_plugin_that_allocates_without_end_is_ended() {
    let error = describe_of("(loop (drop (memory.grow (i32.const 16))) br 0)").await;
    assert!(error.starts_with("the plugin failed: ") && error.contains("memory"), "{error}");
}

#[tokio::test]
async fn a_plugin_that_traps_is_ended() {
    let error = describe_of("unreachable").await;
    assert!(error.contains("unreachable"), "{error}");
}

mod cache {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    fn entry(dir: &tempfile::TempDir) -> PathBuf {
        let entries: Vec<_> =
            fs::read_dir(dir.path().join("hops")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0].clone()
    }

    fn load(dir: &tempfile::TempDir) {
        let runtime = Runtime::new(Limits::default()).unwrap().cache(dir.path().join("hops"));
        let plugin = runtime.load(EMBEDDED).unwrap();
        assert_eq!(plugin.inspection().exports.len(), 1);
    }

    #[test]
    fn a_damaged_entry_is_compiled_anew() {
        let dir = tempfile::tempdir().unwrap();
        load(&dir);
        let whole = fs::read(entry(&dir)).unwrap();
        for damage in [&b""[..], &whole[..40], &[&whole[..whole.len() - 1], b"x"].concat()] {
            fs::write(entry(&dir), damage).unwrap();
            load(&dir);
            assert_eq!(fs::read(entry(&dir)).unwrap(), whole, "the entry is written anew");
        }
    }

    #[test]
    fn an_entry_that_others_could_write_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        load(&dir);
        assert_eq!(fs::metadata(dir.path().join("hops")).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(entry(&dir), fs::Permissions::from_mode(0o666)).unwrap();
        load(&dir);
        assert_eq!(fs::metadata(entry(&dir)).unwrap().permissions().mode() & 0o777, 0o600, "it was written anew");
    }
}
