use super::*;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const EXAMPLE: &str = include_str!("../../../../../tests/example.hops");

fn one(name: &str, text: &str) -> Call {
    let mut calls =
        parse(Path::new(name), text, &Variables::new()).unwrap_or_else(|errors| panic!("{}", lines(&errors)));
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
fn the_example_of_the_document_is_read_unchanged() {
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
fn an_input_has_a_position(#[case] path: &[&str], #[case] position: &str) {
    let path: Vec<String> = path.iter().map(|&segment| segment.into()).collect();
    assert_eq!(one("example.hops", EXAMPLE).position(&path).to_string(), position);
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
#[case::no_label("call {\n}", "a.hops:1:1: a call names an app and one of its handlers, as in call k8s_run\n")]
#[case::no_handler("call k8s {\n}", "a.hops:1:1: a call names an app and one of its handlers, as in call k8s_run\n")]
#[case::block("on push {\n}", "a.hops:1:1: on is not a call; hops run runs only the call blocks of a file\n")]
#[case::outside("image = 1", "a.hops:1:1: image is outside of a call; put it into call k8s_run { inputs = { … } }\n")]
#[case::not_in_inputs(
    "call k8s_run {\n  image = 1\n}",
    "a.hops:2:3: a call has no image; it has inputs and name. Does image belong in inputs?\n"
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
    "a.hops:3:13: undefined variable `foo`; give it with --set foo=…\n\
     a.hops:4:13: undefined variable `bar`; give it with --set bar=…\n\
     a.hops:5:9: undefined function `upper`; known are env, file, jsondecode, jsonencode\n"
)]
#[case::operators(
    "call k8s_run {\n  inputs = {\n    a = -[1]\n    b = {x = 1} + \"s3cret\"\n    c = true ? 1 : 2\n    d = 1 ? 2 : 3\n  }\n}",
    "a.hops:3:9: `-` cannot be applied to an array\n\
     a.hops:4:9: `+` cannot be applied to an object and a string\n\
     a.hops:6:9: expected a boolean, found a number\n"
)]
#[case::out_of_range(
    "call k8s_run {\n  inputs = { a = [[1 / 0], 5 % 2]\n b = 1e308 * 10\n c = 0 / 0\n d = 1 % 0\n e = -9223372036854775808 % -1\n f = 18446744073709551615 + 1 }\n}",
    "a.hops:2:20: a number is out of range; is something divided by 0?\n\
     a.hops:3:6: a number is out of range; is something divided by 0?\n\
     a.hops:4:6: a number is out of range; is something divided by 0?\n\
     a.hops:5:6: a number is out of range; is something divided by 0?\n\
     a.hops:6:6: a number is out of range; is something divided by 0?\n\
     a.hops:7:6: a number is out of range; is something divided by 0?\n"
)]
#[case::key("call k8s_run {\n  inputs = { a = {}[\"x\\ny\"] }\n}", "a.hops:2:18: no such key \"x\\ny\"\n")]
#[case::key_of_another_kind(
    "call k8s_run {\n  inputs = { (12345) = 1 }\n}",
    "a.hops:2:14: a name must be a string, and this is a number\n"
)]
fn what_is_not_a_call_is_an_error_with_its_position(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(lines(&parse(Path::new("a.hops"), text, &Variables::new()).unwrap_err()), expected);
}

#[rstest]
#[case::event("event.nothing", "3:15: no such key \"nothing\"")]
#[case::event_deep("\"x ${event.repo.nam}\"", "3:25: no such key \"nam\"")]
#[case::no_variable(
    "env(\"HOPS_TEST_NOT_SET\")",
    "3:9: env: the environment variable HOPS_TEST_NOT_SET is not set; set it, or give a default: env(\"HOPS_TEST_NOT_SET\", \"\")"
)]
#[case::no_file(
    "\"${file(\"no/such.txt\")}\"",
    "3:12: file: cannot read dir/no/such.txt: No such file or directory (os error 2)"
)]
#[case::no_json("jsondecode(\"{\")", "3:9: jsondecode: not valid JSON: EOF while parsing an object at line 1 column 1")]
fn an_expression_without_a_value_is_an_error_with_its_position(#[case] expression: &str, #[case] expected: &str) {
    let text = format!("call k8s_run {{\n  inputs = {{\n    a = {expression}\n  }}\n}}");
    let event = json!({"repo": {"name": "hops"}});
    let variables = Variables::from([("event".into(), serde_json::from_value(event).unwrap())]);
    assert_eq!(
        lines(&parse(Path::new("dir/a.hops"), &text, &variables).unwrap_err()),
        format!("dir/a.hops:{expected}\n")
    );
}

#[test]
fn expressions_can_use_variables_the_event_the_environment_and_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("script.sh"), "echo \"ü\"\n").unwrap();
    let text = r#"call k8s_run {
  name = "build-${tag}"
  inputs = {
    image   = "app:${tag}"
    command = ["bash", "-c", file("script.sh")]
    home    = env("HOME", "none")
    unset   = env("HOPS_TEST_NOT_SET", "none")
    json    = jsonencode({ repo = event.repo.name, list = [1, 2.5, null, "x"] })
    first   = event.commits[0].id
    all     = [for commit in event.commits : commit.id]
    decoded = jsondecode("{\"a\": [1]}")
  }
}"#;
    let event = json!({"repo": {"name": "hops"}, "commits": [{"id": 12_345_678_901_234_567_u64}, {"id": 2}]});
    let variables =
        Variables::from([("event".into(), serde_json::from_value(event).unwrap()), ("tag".into(), "1.10".into())]);
    let calls =
        parse(&dir.path().join("a.hops"), text, &variables).unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    assert_eq!(calls[0].name, "build-1.10");
    let inputs: Value = serde_json::from_str(&calls[0].inputs).unwrap();
    assert_eq!(
        inputs,
        json!({
            "image": "app:1.10", "command": ["bash", "-c", "echo \"ü\"\n"], "home": std::env::var("HOME").unwrap(),
            "unset": "none", "json": r#"{"repo":"hops","list":[1,2.5,null,"x"]}"#, "first": 12_345_678_901_234_567_u64,
            "all": [12_345_678_901_234_567_u64, 2], "decoded": {"a": [1]},
        })
    );
}

#[test]
fn a_call_has_the_name_it_was_given_or_a_number() {
    let names = |text: &str| {
        parse(Path::new("a.hops"), text, &Variables::new())
            .map(|calls| calls.into_iter().map(|call| call.name).collect::<Vec<_>>())
            .map_err(|errors| lines(&errors))
    };
    let three = "call k8s_run {\n}\ncall k8s_run {\n  name = \"b\"\n}\ncall k8s_run {\n}";
    assert_eq!(names(three).unwrap(), ["k8s_run0", "b", "k8s_run2"]);
    let twice = "call k8s_run {\n  name = \"b\"\n}\ncall k8s_run {\n  name = \"b\"\n}";
    assert_eq!(
        names(twice).unwrap_err(),
        "a.hops:4:1: there is another call \"b\"; give each a name of its own: name = \"…\"\n"
    );
    let number = "call k8s_run {\n  name = 1\n}";
    assert_eq!(names(number).unwrap_err(), "a.hops:2:10: the name of a call must be a string that is not empty\n");
}

#[rstest]
#[case::syntax("call k8s_run {\n  inputs = {\n    é = = 1\n  }\n}", "a.hops:3:9: ")]
#[case::given_twice("call k8s_run {\n  inputs = {\n    a = 1\n    a = 2\n  }\n}", "a.hops:4:")]
#[case::inputs_twice("call k8s_run {\n  inputs = {}\n  inputs = {}\n}", "a.hops:3:3: ")]
#[case::unfinished("call k8s_run {", "a.hops:1:15: ")]
#[case::unknown_character("Aલ᠀", "a.hops:1:3: ")]
fn a_syntax_error_is_one_line_with_its_position(#[case] text: &str, #[case] start: &str) {
    let errors = lines(&parse(Path::new("a.hops"), text, &Variables::new()).unwrap_err());
    assert!(errors.starts_with(&format!("{start}not valid HCL: ")) || errors.starts_with(start), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[rstest]
#[case::arrays("[", "]")]
#[case::objects("{a=", "}")]
#[case::parentheses("(", ")")]
#[case::templates("\"${", "}\"")]
#[case::directives("\"%{ if true }${", "}%{ endif }\"")]
#[case::functions("jsonencode(", ")")]
#[case::loops("[for a in [1] : ", "]")]
#[case::conditionals("true ? ", " : 1")]
#[case::conditionals_at_the_end("true ? 1 : ", "")]
#[case::negations("!", "")]
#[case::signs("- ", "")]
#[case::sums("1 + ", "")]
#[case::indexes("", "[0]")]
#[case::members("", ".a")]
#[case::splats("", "[*]")]
fn deep_nesting_is_an_error_and_not_a_crash(#[case] open: &str, #[case] close: &str) {
    let depth = 100_000;
    let text = format!("call k8s_run {{\n inputs = {{ a = {}1{} }}\n}}", open.repeat(depth), close.repeat(depth));
    parse(Path::new("a.hops"), &text, &Variables::new()).unwrap_err();
}

#[test]
fn deep_nesting_of_blocks_is_an_error_and_not_a_crash() {
    parse(Path::new("a.hops"), &"call {\n".repeat(100_000), &Variables::new()).unwrap_err();
    parse(Path::new("a.hops"), &"inputs = {".repeat(100_000), &Variables::new()).unwrap_err();
}

#[test]
fn json_may_be_nested_to_any_depth() {
    let text = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(one("a.json", &text).inputs, text);
    let text = "{\"a\": ".repeat(100_000);
    parse(Path::new("a.json"), &text, &Variables::new()).unwrap_err();
}

/// Pieces of HCL in an order that sometimes makes sense.
fn any_hcl() -> impl Strategy<Value = String> {
    let pieces = [
        "call k8s_run {\n",
        "inputs = {",
        "inputs = {}",
        "name = ",
        "image",
        "a",
        " = ",
        ": ",
        "\n",
        "\r\n",
        "}",
        "\n}\n",
        "[",
        "]",
        "(",
        ")",
        "\"",
        "\"x\"",
        "${",
        "%{ if true }",
        "%{ endif }",
        "~}",
        "$${",
        "<<EOT\n",
        "<<-EOT\n  ",
        "EOT\n",
        "1",
        "-1",
        "1e999",
        "1e-999",
        "0.10",
        "18446744073709551616",
        "1e400000000000",
        ",",
        ".",
        ".*",
        "[*]",
        "...",
        "?",
        "null",
        "true",
        " + ",
        " / 0",
        " % 0",
        " - ",
        "!",
        " == ",
        " && ",
        "=>",
        "for x in ",
        "for k, v in ",
        " if ",
        "event",
        "tag",
        "jsondecode(",
        "jsonencode(",
        "env(\"A\", ",
        "#",
        "/*",
        "*/",
        "\0",
        "\u{feff}",
        "\\u00e9",
        "\\uD800",
        "\\",
        "é",
        "🦀",
        "\u{2028}",
    ];
    let piece = prop_oneof![20 => prop::sample::select(pieces.to_vec()).prop_map(String::from), 1 => any::<String>()];
    let pieces = |most| prop::collection::vec(piece.clone(), 0..most).prop_map(|pieces| pieces.concat());
    prop_oneof![pieces(30), pieces(12).prop_map(|value| format!("call k8s_run {{\n inputs = {{ a = {value} }}\n}}")),]
}

/// Values as inputs have them.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[$%{}~\"\\\\\r\n\t\0]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |value| {
        prop_oneof![
            prop::collection::vec(value.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), value, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_positions_in_it(
        text in prop_oneof![any_hcl(), any::<String>()],
        name in prop::sample::select(vec!["a.hops", "a.json"]),
    ) {
        let variables = Variables::from([("tag".into(), "1".into()), ("event".into(), hcl::value!({"a" = [1]}))]);
        match parse(Path::new(name), &text, &variables) {
            Ok(calls) => {
                for call in calls {
                    let inputs: Box<RawValue> = serde_json::from_str(&call.inputs).unwrap();
                    prop_assert_eq!(inputs.get().bytes().next(), Some(b'{'));
                }
            }
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    let Position { line, column } = error.position;
                    prop_assert!((1..=text.matches('\n').count() + 1).contains(&line), "{error}");
                    prop_assert!((1..=text.chars().count() + 1).contains(&column), "{error}");
                    prop_assert!(!error.message.contains('\n'), "{error}");
                }
            }
        }
    }

    #[test]
    fn values_in_hcl_are_what_they_are_in_json(value in any_value()) {
        let text = value.to_string().replace("${", "$${").replace("%{", "%%{");
        prop_assert_eq!(inputs(&format!("a = {text}")), json!({"a": value}));
    }
}

#[test]
fn a_json_file_contains_the_inputs_of_one_call() {
    let text = "\u{feff}{\n  \"image\": \"a\",\n  \"in_files\": {\"ä\": 1,\n  \"\\u00fc\": 2}\n}";
    let call = one("a.json", text);
    assert_eq!(call.app_handler, None);
    assert_eq!(format!("\u{feff}{}", call.inputs), text);
    let position =
        |path: &[&str]| call.position(&path.iter().map(|&segment| segment.into()).collect::<Vec<_>>()).to_string();
    assert_eq!(position(&[]), "1:1");
    assert_eq!(position(&["image"]), "2:12");
    assert_eq!(position(&["in_files", "ä"]), "3:21");
    assert_eq!(position(&["in_files", "ü"]), "4:13");
    assert_eq!(position(&["nothing"]), "1:1");
}

#[rstest]
#[case::syntax("a.json", "{\n \"é\": x}", "a.json:2:7: not valid JSON: expected value\n")]
#[case::empty("a.json", "", "a.json:1:1: not valid JSON: EOF while parsing a value\n")]
#[case::array("a.json", "\n []", "a.json:2:2: expected an object with the inputs of a call: {\"image\": \"…\"}\n")]
#[case::ending(
    "a.yaml",
    "",
    "a.yaml:1:1: the file's name does not say what it contains: use .hops for calls, .json for the inputs of one\n"
)]
fn a_file_without_inputs_is_an_error(#[case] name: &str, #[case] text: &str, #[case] expected: &str) {
    assert_eq!(lines(&parse(Path::new(name), text, &Variables::new()).unwrap_err()), expected);
}
