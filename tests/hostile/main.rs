//! Hostile plugins: each ends its own call, in time and within its limits, and harms no other call.

mod misdeeds;

use hops_k8s::event::{Event, Events};
use hops_k8s::plugin::{CallCtx, CallError, Limits, LoadError, Plugin};
use hops_k8s::pods::PodStatus;
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::policy::Policy;
use hops_k8s_tests::{Document, call, component_of, rss, runtime};
use misdeeds::{ALL, Misdeed, NONE};
use rstest::rstest;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn load(misdeed: Misdeed) -> Plugin {
    let text = include_str!("plugin.wat");
    let text =
        text.replace("@START@", misdeed.start).replace("@REALLOC@", misdeed.realloc).replace("@CALL@", misdeed.call);
    let mut limits = Limits::default();
    limits.calls = 4;
    limits.cpu_time = Duration::from_millis(200);
    limits.pod_calls = 20;
    limits.pod_bytes = 32 << 20;
    limits.time = Duration::from_secs(3);
    runtime(limits).load(&component_of(&text)).unwrap()
}

/// Calls a plugin with pods that run for ever, and have a long log and a large file.
async fn call_of(plugin: &Plugin, events: Events) -> Result<String, CallError> {
    let pods = Arc::new(Memory::new(|_| {
        let log = "a line\n".repeat(2000);
        Script::default().at(0, PodStatus::running()).file("x", vec![1; 8 << 20]).log(log)
    }));
    let ctx = CallCtx::new(pods.clone(), Arc::new(Policy::default())).events(events);
    let called = plugin.call(ctx, "run", "{}").await;
    assert!(pods.created().len() <= Limits::default().pods);
    assert_eq!(pods.live(), 0, "a pod is left");
    match called {
        Ok(result) => Ok(result.into_text()),
        Err(CallError::NotADocument(text)) => Ok(text),
        Err(error) => Err(error),
    }
}

/// The answer of a plugin whose `call` runs this code.
async fn answer(call: &'static str) -> String {
    call_of(&load(Misdeed { call, ..NONE }), Events::default()).await.unwrap()
}

/// Runs 100 calls of the real plugin at once, and checks that they succeed. Returns the median of their times.
async fn good_calls() -> Duration {
    let pods = Arc::new(Memory::new(|_| {
        Script::default()
            .at(0, PodStatus::running())
            .at(20, PodStatus::exited(0, "Completed", ""))
            .file("result.json", "[1]")
    }));
    let calls = (0..100).map(|_| {
        let pods = pods.clone();
        tokio::spawn(async move {
            let start = Instant::now();
            let text = call(pods, &json!({"image": "a"})).await.unwrap();
            assert_eq!(Document::parse(&text).json(), &json!([1]));
            start.elapsed()
        })
    });
    let mut times: Vec<Duration> =
        futures::future::join_all(calls).await.into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(pods.live(), 0);
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_misdeed_ends_its_own_call_and_no_other() {
    for misdeed in ALL {
        let plugin = load(misdeed);
        let (called, _) = tokio::join!(call_of(&plugin, Events::default()), good_calls());
        let error = called.map(|text| text.len()).unwrap_err().to_string();
        assert_eq!(error, misdeed.error, "a plugin that {}", misdeed.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures, and checks nothing"]
async fn figures() {
    let alone = good_calls().await.min(good_calls().await);
    println!("{:40} {:>9} {:>9} {:>9}", "", "ends in", "memory", "100 calls beside it");
    println!("{:40} {:>9} {:>9} {alone:>9.1?}", "nothing", "", "");
    for misdeed in ALL {
        let plugin = load(misdeed);
        rss::reset_peak();
        let before = rss::now();
        let start = Instant::now();
        let called = call_of(&plugin, Events::default()).await;
        let (took, memory) = (start.elapsed(), rss::peak().saturating_sub(before) / 1024);
        drop(called);
        let (_, beside) = tokio::join!(call_of(&plugin, Events::default()), good_calls());
        println!("{:40} {took:>9.1?} {memory:>5} MiB {beside:>9.1?}", misdeed.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_gets_no_more_lines_of_a_log_than_the_policy_allows() {
    let text = answer(
        "(call $tail-logs (call $pod) (i32.const -1) (i32.const 256))
        (call $answer (i32.load (i32.const 264)) (i32.load (i32.const 268)))",
    );
    assert_eq!(text.await.lines().count(), 1000);
}

#[rstest]
#[case::absolute("(i32.const 512) (i32.const 3)", "the input file \"/in\"")]
#[case::upwards("(i32.const 520) (i32.const 4)", "the input file \"../x\"")]
#[case::empty("(i32.const 520) (i32.const 0)", "the input file \"\"")]
#[tokio::test]
async fn a_plugin_can_put_files_only_below_the_input_directory(#[case] path: &'static str, #[case] file: &str) {
    let call =
        format!("(call $set-string (i32.const 1024) {path}) (call $pod-with-files (i32.const 1024) (i32.const 1))");
    let error = answer(call.leak()).await;
    assert_eq!(error, format!("{file} is not below its directory; give a relative path without .."));
}

#[tokio::test]
async fn a_plugin_can_read_files_only_below_the_output_directory() {
    let error =
        answer("(call $read-file (call $pod) (i32.const 520) (i32.const 4) (i32.const 256)) (call $error)").await;
    assert_eq!(error, "the file to read \"../x\" is not below its directory; give a relative path without ..");
}

#[tokio::test]
async fn a_description_that_is_too_large_for_a_pod_is_refused() {
    let error = answer(
        "(call $grow-to-100-mib)
        (call $set-string (i32.const 8) (i32.const 1024) (i32.const 20000000))
        (call $create (call $spec) (i32.const 256))
        (call $error)",
    )
    .await;
    assert_eq!(
        error,
        "the description of the pod has 20000199 bytes, more than the 1048576 that a pod can have; put long texts into \
         input files"
    );
}

#[tokio::test]
async fn a_result_that_is_not_a_document_is_an_error_with_its_text() {
    assert_eq!(answer("(call $answer (i32.const 525) (i32.const 1))").await, "{");
}

#[tokio::test(start_paused = true)]
async fn a_pod_can_be_deleted_twice_while_its_log_is_read() {
    let plugin = load(Misdeed {
        call: "(local.set $pod (call $pod))
            (call $wait (local.get $pod) (i64.const 0) (i32.const 256))
            (call $delete (local.get $pod) (i32.const 256))
            (call $delete (local.get $pod) (i32.const 256))
            (call $answer (i32.const 0) (i32.const 0))",
        ..NONE
    });
    let (events, mut heard) = Events::channel(true);
    call_of(&plugin, events).await.unwrap();
    let mut deletions = 0;
    while let Some(event) = heard.recv().await {
        deletions += usize::from(matches!(event, Event::Deleting));
    }
    assert_eq!(deletions, 2);
}

#[rstest]
#[case::memories("(memory 1)", "memories")]
#[case::tables("(table 1 funcref) (table 1 funcref)", "tables")]
fn a_component_with_more_than_its_share_is_refused(#[case] more: &str, #[case] what: &str) {
    let text = include_str!("plugin.wat").replacen("(table", &format!("{more} (table"), 1);
    let text = text.replace("@START@", "").replace("@REALLOC@", "").replace("@CALL@", NONE.call);
    let error = runtime(Limits::default()).load(&component_of(&text)).expect_err("it has too many");
    assert!(matches!(error, LoadError::Invalid(_)) && error.to_string().contains(what), "{error}");
}
