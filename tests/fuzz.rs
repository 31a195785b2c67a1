//! Random inputs, files and errors in the built component, which has a stack and a memory of its own.

use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::pods::{Error, PodSpec, PodStatus};
use hops_k8s_tests::{Document, call_text, plugin};
use proptest::prelude::*;
use proptest::sample::select;
use rstest::rstest;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::runtime::Runtime;

const DEPTH: usize = 100_000;

/// Runs a call whose container writes this file. Returns the document, and the pod that the plugin asked for.
fn play(inputs: &str, path: &str, content: &[u8]) -> (Document, Option<PodSpec>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let script = Script::default().at(0, PodStatus::exited(0, "Completed", "")).file(path, content);
    let pods = Arc::new(Memory::new(move |_| script.clone()));
    let text = runtime.block_on(call_text(pods.clone(), inputs)).unwrap();
    assert!(pods.live() == 0 || pods.created().iter().any(|spec| spec.keep));
    (Document::parse(&text), pods.created().pop())
}

#[rstest]
#[case::arrays("[", "]")]
#[case::objects(r#"{"a":"#, "}")]
fn nesting_may_be_deep(#[case] open: &str, #[case] close: &str) {
    let nest = open.repeat(DEPTH) + "[]" + &close.repeat(DEPTH);
    for inputs in [nest.clone(), format!(r#"{{"image":{nest}}}"#), format!(r#"{{"image":"a","args":[{nest}]}}"#)] {
        let (document, pod) = play(&inputs, "", b"");
        assert!(document.error().starts_with("InvalidInputs: "), "{}", document.error());
        assert_eq!(pod, None);
    }
}

#[rstest]
#[case::arrays("[", "]")]
#[case::objects(r#"{"a":"#, "}")]
fn a_result_may_be_nested_deep(#[case] open: &str, #[case] close: &str) {
    let nest = open.repeat(DEPTH) + "[]" + &close.repeat(DEPTH);
    let pods = Arc::new(Memory::new(move |_| {
        Script::default().at(0, PodStatus::exited(0, "Completed", "")).file("result.json", nest.clone())
    }));
    let text = Runtime::new().unwrap().block_on(call_text(pods, r#"{"image":"a"}"#)).unwrap();
    assert!(text.ends_with(&format!(r#""body":"","json":{}[]{}}}"#, open.repeat(DEPTH), close.repeat(DEPTH))));
}

/// Inputs, most of them valid.
fn any_inputs() -> impl Strategy<Value = String> {
    let text = |texts: &'static [&'static str]| select(texts).prop_map(Value::from);
    let name = prop_oneof![
        6 => select(vec!["a", "b", "a/b", "A_1", "ü", ".x", "a b"]).prop_map(String::from),
        1 => select(vec!["..", "../a", "/a", "a//b", "a/./b", "", "..a"]).prop_map(String::from),
        1 => any::<String>(),
    ];
    let any_text = any::<String>().prop_map(Value::from);
    let texts = prop::collection::vec(any::<String>(), 0..4).prop_map(Value::from);
    let map = prop::collection::btree_map(name.clone(), any::<String>(), 0..4).prop_map(|map| json!(map));
    let dirs = text(&["", "/in", "/in/a", "/out", "/", "//x//y/", "/./a", "a", "/a/../b", "/a:b", "/ü ö"]);
    let paths = name.prop_map(Value::from);
    let spans = text(&["", "1s", "1ms", "1000years", "584942417355years", "0s", "1", "-1s"]);
    let quantities = prop_oneof![
        text(&["", "250m", "1", "1e3", "128Mi", "1e99", "0", "1n", "9223372036854775807E", "-1", "1e-9999999999"]),
        any::<u64>().prop_map(Value::from)
    ];
    let namespaces = text(&["", "default", "team-1", "Team", "a.b"]);
    let fields = (
        prop_oneof![9 => text(&["a", "bash:5"]), 1 => any_text],
        prop::option::of(texts.clone()),
        prop::option::of(texts),
        prop::option::of(namespaces),
        (prop::option::of(dirs.clone()), prop::option::of(dirs)),
        (prop::option::of(map.clone()), prop::option::of(map)),
        prop::option::of(paths),
        (prop::option::of(quantities.clone()), prop::option::of(quantities)),
        (prop::option::of(spans.clone()), prop::option::of(spans)),
        any::<bool>(),
    );
    fields.prop_map(|(image, command, args, namespace, dirs, maps, out_path, quantities, spans, skip_cleanup)| {
        let fields = [
            ("image", Some(image)),
            ("command", command),
            ("args", args),
            ("namespace", namespace),
            ("in_dir", dirs.0),
            ("out_dir", dirs.1),
            ("in_files", maps.0),
            ("env", maps.1),
            ("out_path", out_path),
            ("cpu", quantities.0),
            ("memory", quantities.1),
            ("timeout", spans.0),
            ("start_timeout", spans.1),
            ("skip_cleanup", Some(skip_cleanup.into())),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(fields.collect::<Map<_, _>>()).to_string()
    })
}

proptest! {
    #[test]
    fn any_inputs_give_either_a_pod_or_problems_with_their_paths(
        inputs in prop_oneof![4 => any_inputs(), 1 => any::<String>()],
    ) {
        let problems = Runtime::new().unwrap().block_on(plugin().check("run", &inputs)).unwrap();
        let (document, pod) = play(&inputs, "result.json", b"[1]");
        prop_assert_eq!(document.error().starts_with("InvalidInputs: "), !problems.is_empty(), "{}", document.error());
        prop_assert_eq!(pod.is_some(), problems.is_empty(), "{}", document.error());
        for problem in &problems {
            let name = problem.path.first().map_or("inputs", String::as_str);
            prop_assert!(problem.message.contains(name) || problem.message.contains(&format!("{name:?}")), "{problem:?}");
        }
        if let Some(pod) = pod {
            prop_assert!(pod.lifetime_ms > 0 && !pod.image.is_empty());
        }
    }

    #[test]
    fn any_file_gives_a_document(content: Vec<u8>, text: String, path in select(vec!["result.json", "out.txt"])) {
        let inputs = json!({"image": "a", "out_path": path}).to_string();
        let (document, _) = play(&inputs, path, &content);
        prop_assert_eq!(document.error().is_empty(), std::str::from_utf8(&content).is_ok());
        let (document, _) = play(&inputs, path, text.as_bytes());
        prop_assert!(document.body() == text || document.body().is_empty());
    }

    #[test]
    fn any_error_of_the_host_is_passed_on_unchanged(why: String) {
        let runtime = Runtime::new().unwrap();
        let script = Script::refused(Error::Other(why.clone()));
        let pods = Arc::new(Memory::new(move |_| script.clone()));
        let text = runtime.block_on(call_text(pods, r#"{"image":"a"}"#)).unwrap();
        let document = Document::parse(&text);
        prop_assert_eq!(document.error(), format!("Error: {why}"));
    }
}
