use super::*;
use rstest::rstest;
use serde_json::{Value, json};

const EXAMPLE: &str = include_str!("../../../../tests/example.hops");

fn one(name: &str, text: &str) -> Call {
    let mut calls = parse(Path::new(name), text).unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    assert_eq!(calls.len(), 1);
    calls.remove(0)
}

fn lines(errors: &[FileError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

fn inputs(text: &str) -> Value {
    let call = one("a.hops", &format!("call k8s_run {{\n inputs = {{\n{text}\n }}\n}}"));
    serde_json::from_str(&call.inputs).unwrap()
}

#[test]
fn the_documents_example_is_read_as_it_stands() {
    let call = one("example.hops", EXAMPLE);
    assert_eq!(call.app_handler, Some(("k8s".into(), "run".into())));
    let inputs: Value = serde_json::from_str(&call.inputs).unwrap();
    assert_eq!(
        inputs,
        json!({
            "image": "bash:5-alpine3.18",
            "command": ["bash", "-c", "echo '{\"greeting\": \"Hello world!\"}' > /output/result.json"],
            "args": [], "namespace": "", "in_dir": "", "in_files": {"foo.txt": "bar"}, "out_dir": "", "out_path": "",
            "cpu": "100m", "memory": "500Mi", "skip_cleanup": false,
        })
    );
}

#[rstest]
#[case::call(&[], "1:1")]
#[case::input(&["image"], "3:5")]
#[case::item(&["command", "2"], "5:21")]
#[case::file(&["in_files", "foo.txt"], "11:7")]
#[case::missing(&["timeout"], "1:1")]
#[case::missing_inside(&["in_files", "b"], "10:5")]
fn an_input_has_its_place(#[case] path: &[&str], #[case] place: &str) {
    let path: Vec<String> = path.iter().map(|&segment| segment.into()).collect();
    assert_eq!(one("example.hops", EXAMPLE).place(&path).to_string(), place);
}

#[rstest]
#[case::numbers("a = 18446744073709551615, b = 1.5, c = -3", json!({"a": 18_446_744_073_709_551_615_u64, "b": 1.5, "c": -3}))]
#[case::names(r#""a b": 1, c : 2, "d" = 3"#, json!({"a b": 1, "c": 2, "d": 3}))]
#[case::literals("a = null, b = true, c = [1, [2]]", json!({"a": null, "b": true, "c": [1, [2]]}))]
#[case::escapes(r#"a = "\"\\\n\t\u00e9$${x}""#, json!({"a": "\"\\\n\té${x}"}))]
#[case::heredoc("a = <<EOT\nline 1\n\"2\"\nEOT", json!({"a": "line 1\n\"2\"\n"}))]
#[case::indented_heredoc("a = <<-EOT\n    line 1\n      line 2\n    EOT", json!({"a": "line 1\n  line 2\n"}))]
#[case::template(r#"a = "x${1 + 2}y""#, json!({"a": "x3y"}))]
#[case::conditional(r#"a = true ? "yes" : "no""#, json!({"a": "yes"}))]
#[case::comments("a = 1 # one\n// two\nb = 2 /* three */", json!({"a": 1, "b": 2}))]
fn hcl_values_become_json(#[case] text: &str, #[case] expected: Value) {
    assert_eq!(inputs(text), expected);
}

#[test]
fn inputs_keep_their_order() {
    let call = one("a.hops", "call k8s_run {\n inputs = { b = 1, a = { d = 1, c = 2 } }\n}");
    assert_eq!(call.inputs, r#"{"b":1,"a":{"d":1,"c":2}}"#);
}

#[rstest]
#[case::empty("", "a.hops:1:1: there is no call; write call k8s_run { inputs = { image = \"…\" } }\n")]
#[case::no_label("call {\n}", "a.hops:1:1: a call has the name of an app and of what it does, as in call k8s_run\n")]
#[case::no_handler(
    "call k8s {\n}",
    "a.hops:1:1: a call has the name of an app and of what it does, as in call k8s_run\n"
)]
#[case::block("on push {\n}", "a.hops:1:1: on is no call; hops run runs the call blocks of a file alone\n")]
#[case::outside(
    "image = 1",
    "a.hops:1:1: image stands outside of a call; put it into call k8s_run { inputs = { … } }\n"
)]
#[case::not_in_inputs(
    "call k8s_run {\n  image = 1\n}",
    "a.hops:2:3: a call has no image; it has inputs and name. Does it belong into inputs?\n"
)]
#[case::inputs_block(
    "call k8s_run {\n  inputs {\n  }\n}",
    "a.hops:2:3: inputs is an attribute: write inputs = { … }, with an equals sign\n"
)]
#[case::no_object(
    "call k8s_run {\n  inputs = 1\n}",
    "a.hops:2:12: inputs must be an object: inputs = { image = \"…\" }\n"
)]
#[case::undefined(
    "call k8s_run {\n  inputs = {\n    a = [1, foo]\n    b = \"é${bar}\"\n    c = upper(1)\n  }\n}",
    "a.hops:3:13: undefined variable `foo`\na.hops:4:9: undefined variable `bar`\na.hops:5:9: undefined function `upper`\n"
)]
fn what_is_no_call_is_an_error_with_its_place(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(lines(&parse(Path::new("a.hops"), text).unwrap_err()), expected);
}

#[rstest]
#[case::syntax("call k8s_run {\n  inputs = {\n    é = = 1\n  }\n}", "a.hops:3:9: ")]
#[case::given_twice("call k8s_run {\n  inputs = {\n    a = 1\n    a = 2\n  }\n}", "a.hops:4:")]
#[case::inputs_twice("call k8s_run {\n  inputs = {}\n  inputs = {}\n}", "a.hops:3:3: ")]
#[case::unfinished("call k8s_run {", "a.hops:1:15: ")]
fn a_slip_of_the_pen_is_one_line_with_its_place(#[case] text: &str, #[case] start: &str) {
    let errors = lines(&parse(Path::new("a.hops"), text).unwrap_err());
    assert!(errors.starts_with(&format!("{start}not valid HCL: ")) || errors.starts_with(start), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    for (open, close) in [("[", "]"), ("{a=", "}"), ("(", ")"), ("\"${", "}\"")] {
        let text = format!("call k8s_run {{\n inputs = {{ a = {}1{} }}\n}}", open.repeat(10_000), close.repeat(10_000));
        parse(Path::new("a.hops"), &text).unwrap_err();
    }
}

#[test]
fn a_json_file_holds_the_inputs_of_one_call() {
    let text = "\u{feff}{\n  \"image\": \"a\",\n  \"in_files\": {\"ä\": 1,\n  \"\\u00fc\": 2}\n}";
    let call = one("a.json", text);
    assert_eq!(call.app_handler, None);
    assert_eq!(format!("\u{feff}{}", call.inputs), text);
    let place = |path: &[&str]| call.place(&path.iter().map(|&segment| segment.into()).collect::<Vec<_>>()).to_string();
    assert_eq!(place(&[]), "1:1");
    assert_eq!(place(&["image"]), "2:12");
    assert_eq!(place(&["in_files", "ä"]), "3:21");
    assert_eq!(place(&["in_files", "ü"]), "4:13");
    assert_eq!(place(&["nothing"]), "1:1");
}

#[rstest]
#[case::syntax("a.json", "{\n \"é\": x}", "a.json:2:7: not valid JSON: expected value\n")]
#[case::empty("a.json", "", "a.json:1:1: not valid JSON: EOF while parsing a value\n")]
#[case::array("a.json", "\n []", "a.json:2:2: expected an object with the inputs of a call: {\"image\": \"…\"}\n")]
#[case::ending(
    "a.yaml",
    "",
    "a.yaml:1:1: the file's name says not what it holds: use .hops for calls, .json for the inputs of one\n"
)]
fn a_file_that_holds_no_inputs_is_an_error(#[case] name: &str, #[case] text: &str, #[case] expected: &str) {
    assert_eq!(lines(&parse(Path::new(name), text).unwrap_err()), expected);
}
