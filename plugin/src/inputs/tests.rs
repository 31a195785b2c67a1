#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;
use rstest::rstest;
use std::collections::BTreeSet;
use std::path::{Component, Path};

fn schema_properties() -> serde_json::Map<String, serde_json::Value> {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    schema.get("properties").unwrap().as_object().unwrap().clone()
}

/// The names in the schema.
fn schema_names() -> BTreeSet<String> {
    schema_properties().keys().cloned().collect()
}

/// An inputs object with an image and these fields.
fn image_and(fields: &str) -> String {
    format!(r#"{{"image":"a",{fields}}}"#)
}

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().into_iter().map(|problem| problem.message).collect()
}

fn only_problem(text: &str) -> String {
    let [problem] = problems(text).try_into().unwrap();
    problem
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&s| s.into()).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|&(key, value)| (key.into(), value.into())).collect()
}

/// The inputs where only an image is given.
fn defaults() -> Inputs {
    Inputs {
        image: "a".into(),
        command: vec![],
        args: vec![],
        namespace: "default".into(),
        in_dir: "/input".into(),
        in_files: vec![],
        out_dir: "/output".into(),
        out_path: "result.json".into(),
        cpu: "250m".into(),
        memory: "128Mi".into(),
        skip_cleanup: false,
        env: vec![],
        timeout: None,
        start_timeout: Duration::from_secs(120),
        service_account: None,
        image_pull_secrets: vec![],
        node_selector: vec![],
    }
}

#[test]
fn the_documents_example_is_read_with_all_its_fields() {
    let example = r#"{
        "image": "bash:5-alpine3.18",
        "command": ["bash", "-c", "echo '{\"greeting\": \"Hello world!\"}' > /output/result.json"],
        "args": [],
        "namespace": "",
        "in_dir": "",
        "in_files": {"foo.txt": "bar"},
        "out_dir": "",
        "out_path": "",
        "cpu": "100m",
        "memory": "500Mi",
        "skip_cleanup": false
    }"#;
    let expected = Inputs {
        image: "bash:5-alpine3.18".into(),
        command: strings(&["bash", "-c", r#"echo '{"greeting": "Hello world!"}' > /output/result.json"#]),
        in_files: pairs(&[("foo.txt", "bar")]),
        cpu: "100m".into(),
        memory: "500Mi".into(),
        ..defaults()
    };
    assert_eq!(parse(example).unwrap(), expected);
}

#[test]
fn every_field_is_read_as_it_is_given() {
    let text = r#"{
        "node_selector": {"disk": "ssd"},
        "image_pull_secrets": ["one", "registry.two"],
        "service_account": "builder",
        "start_timeout": "30s",
        "timeout": "1h",
        "env": {"B": "2", "A": ""},
        "skip_cleanup": true,
        "memory": "1Gi",
        "cpu": 2,
        "out_path": "deep/er/out.txt",
        "out_dir": "/results",
        "in_files": {"b": "2\n", "a": ""},
        "in_dir": "/files",
        "namespace": "team-1",
        "args": ["", " x "],
        "command": ["sh"],
        "image": "localhost:5000/a/b:c@sha256:0123"
    }"#;
    let expected = Inputs {
        image: "localhost:5000/a/b:c@sha256:0123".into(),
        command: strings(&["sh"]),
        args: strings(&["", " x "]),
        namespace: "team-1".into(),
        in_dir: "/files".into(),
        in_files: pairs(&[("b", "2\n"), ("a", "")]),
        out_dir: "/results".into(),
        out_path: "deep/er/out.txt".into(),
        cpu: "2".into(),
        memory: "1Gi".into(),
        skip_cleanup: true,
        env: pairs(&[("B", "2"), ("A", "")]),
        timeout: Some(Duration::from_secs(3600)),
        start_timeout: Duration::from_secs(30),
        service_account: Some("builder".into()),
        image_pull_secrets: strings(&["one", "registry.two"]),
        node_selector: pairs(&[("disk", "ssd")]),
    };
    assert_eq!(parse(text).unwrap(), expected);
}

#[test]
fn an_image_alone_is_enough() {
    assert_eq!(parse(r#"{"image":"a"}"#).unwrap(), defaults());
}

#[test]
fn the_schemas_defaults_are_those_of_the_inputs() {
    for (name, property) in schema_properties() {
        if let Some(default) = property.get("default") {
            assert_eq!(parse(&image_and(&format!("{name:?}:{default}"))).unwrap(), defaults(), "{name}");
        }
    }
}

#[test]
fn null_means_absent() {
    for name in schema_names().iter().filter(|name| *name != "image") {
        assert_eq!(parse(&image_and(&format!("{name:?}:null"))).unwrap(), defaults(), "{name}");
    }
}

#[rstest]
fn an_empty_string_means_the_default(
    #[values(
        "namespace",
        "in_dir",
        "out_dir",
        "out_path",
        "cpu",
        "memory",
        "timeout",
        "start_timeout",
        "service_account"
    )]
    name: &str,
) {
    assert_eq!(parse(&image_and(&format!(r#""{name}":"""#))).unwrap(), defaults());
}

#[rstest]
#[case::in_a_map_of_files(r#""in_files":{"a":null,"b":"x"}"#, Inputs { in_files: pairs(&[("b", "x")]), ..defaults() })]
#[case::in_the_environment(r#""env":{"A":null,"B":"x"}"#, Inputs { env: pairs(&[("B", "x")]), ..defaults() })]
#[case::in_the_node_selector(
    r#""node_selector":{"a":null,"b":"x"}"#,
    Inputs { node_selector: pairs(&[("b", "x")]), ..defaults() }
)]
fn null_means_absent_within_a_map(#[case] fields: &str, #[case] expected: Inputs) {
    assert_eq!(parse(&image_and(fields)).unwrap(), expected);
}

#[rstest]
#[case::absent("{}", "image: required, but missing or empty")]
#[case::null(r#"{"image":null}"#, "image: required, but missing or empty")]
#[case::empty(r#"{"image":""}"#, "image: required, but missing or empty")]
#[case::not_a_string(r#"{"image":1}"#, "image: expected a string, found a number")]
#[case::white_space(r#"{"image":"a b"}"#, r#"image: expected an image name without white space, found "a b""#)]
#[case::trailing_newline(r#"{"image":"a\n"}"#, r#"image: expected an image name without white space, found "a\n""#)]
#[case::white_space_alone(r#"{"image":" "}"#, r#"image: expected an image name without white space, found " ""#)]
#[case::nul(r#"{"image":"a\u0000"}"#, "image: must not contain a NUL character")]
fn an_image_is_required_and_has_no_white_space(#[case] text: &str, #[case] problem: &str) {
    assert_eq!(problems(text), [problem]);
}

#[rstest]
#[case(r#""command":"ls""#, "command: expected an array of strings, found a string")]
#[case(r#""command":["ls",1]"#, "command[1]: expected a string, found a number")]
#[case(r#""args":{}"#, "args: expected an array of strings, found an object")]
#[case(r#""args":[null]"#, "args[0]: expected a string, found null")]
#[case(r#""args":["a",["b"]]"#, "args[1]: expected a string, found an array")]
#[case(r#""namespace":1.5"#, "namespace: expected a string, found a number")]
#[case(r#""in_dir":[]"#, "in_dir: expected a string, found an array")]
#[case(r#""in_files":["a"]"#, "in_files: expected an object of strings, found an array")]
#[case(r#""in_files":{"a.txt":12}"#, r#"in_files["a.txt"]: expected a string, found a number"#)]
#[case(r#""in_files":{"0":true}"#, r#"in_files["0"]: expected a string, found a boolean"#)]
#[case(r#""out_dir":false"#, "out_dir: expected a string, found a boolean")]
#[case(r#""out_path":{"a":"b"}"#, "out_path: expected a string, found an object")]
#[case(r#""cpu":true"#, "cpu: expected a string or a number, found a boolean")]
#[case(r#""memory":["1Gi"]"#, "memory: expected a string or a number, found an array")]
#[case(r#""skip_cleanup":"true""#, "skip_cleanup: expected true or false, found a string")]
#[case(r#""skip_cleanup":0"#, "skip_cleanup: expected true or false, found a number")]
#[case(r#""env":"A=b""#, "env: expected an object of strings, found a string")]
#[case(r#""env":{"PORT":8080}"#, r#"env["PORT"]: expected a string, found a number"#)]
#[case(r#""timeout":90"#, r#"timeout: expected a duration such as "90s" or "10m", found a number"#)]
#[case(r#""start_timeout":true"#, r#"start_timeout: expected a duration such as "90s" or "10m", found a boolean"#)]
#[case(r#""service_account":{}"#, "service_account: expected a string, found an object")]
#[case(r#""image_pull_secrets":"s""#, "image_pull_secrets: expected an array of strings, found a string")]
#[case(r#""image_pull_secrets":[7]"#, "image_pull_secrets[0]: expected a string, found a number")]
#[case(r#""node_selector":[]"#, "node_selector: expected an object of strings, found an array")]
#[case(r#""node_selector":{"a":{}}"#, r#"node_selector["a"]: expected a string, found an object"#)]
fn a_wrong_type_is_refused_with_its_path_and_both_types(#[case] fields: &str, #[case] problem: &str) {
    assert_eq!(problems(&image_and(fields)), [problem]);
}

#[test]
fn everything_wrong_is_reported_at_once_in_the_order_of_the_text() {
    let text = r#"{
        "timeout": 90,
        "imge": "bash",
        "in_files": {"../a": 1, "ok": "", "b": false},
        "out_dir": "/input/out",
        "cpu": "lots",
        "timeout": "90s",
        "command": [1, "a", null]
    }"#;
    assert_eq!(
        problems(text),
        [
            r#"timeout: expected a duration such as "90s" or "10m", found a number"#,
            "timeout: given twice",
            r#"unknown input "imge", did you mean "image"?"#,
            r#"in_files["../a"]: must not have .. in it, found "../a""#,
            r#"in_files["../a"]: expected a string, found a number"#,
            r#"in_files["b"]: expected a string, found a boolean"#,
            r#"out_dir: in_dir "/input" and out_dir "/input/out" must not contain each other"#,
            r#"cpu: expected a Kubernetes quantity such as "250m" or "0.5", found "lots""#,
            "command[0]: expected a string, found a number",
            "command[2]: expected a string, found null",
        ]
    );
}

#[rstest]
#[case::the_whole("[]", &[])]
#[case::a_field(r#"{"image":1}"#, &["image"])]
#[case::a_missing_field("{}", &["image"])]
#[case::an_unknown_field(r#"{"image":"a","x-y":1}"#, &["x-y"])]
#[case::an_item(r#"{"image":"a","args":["",1]}"#, &["args", "1"])]
#[case::an_entry(r#"{"image":"a","in_files":{"a/b.txt":1}}"#, &["in_files", "a/b.txt"])]
fn a_problem_says_where_it_is(#[case] text: &str, #[case] path: &[&str]) {
    let found: Vec<Vec<String>> = parse(text).unwrap_err().into_iter().map(|problem| problem.path).collect();
    assert_eq!(found, [strings(path)]);
}

#[rstest]
#[case("imge", "image")]
#[case("Image", "image")]
#[case("comand", "command")]
#[case("arg", "args")]
#[case("name_space", "namespace")]
#[case("in-files", "in_files")]
#[case("inFiles", "in_files")]
#[case("infiles", "in_files")]
#[case("in_file", "in_files")]
#[case("out-path", "out_path")]
#[case("cpus", "cpu")]
#[case("memmory", "memory")]
#[case("skipCleanup", "skip_cleanup")]
#[case("skip-cleanup", "skip_cleanup")]
#[case("envs", "env")]
#[case("time_out", "timeout")]
#[case("image_pull_secret", "image_pull_secrets")]
#[case("serviceAccount", "service_account")]
fn an_unknown_input_is_refused_with_the_nearest_name(#[case] given: &str, #[case] nearest: &str) {
    let expected = format!("unknown input {given:?}, did you mean {nearest:?}?");
    assert_eq!(problems(&image_and(&format!("{given:?}:null"))), [expected]);
}

#[rstest]
#[case::far_off("privileged")]
#[case::short("x")]
#[case::empty("")]
#[case::non_ascii("büld")]
fn an_unknown_input_that_resembles_none_is_refused_with_all_names(#[case] given: &str) {
    let problem = only_problem(&image_and(&format!("{given:?}:1")));
    let known = problem.strip_prefix(&format!("unknown input {given:?}, expected one of ")).unwrap();
    assert_eq!(known.split(", ").map(String::from).collect::<BTreeSet<_>>(), schema_names());
}

#[rstest]
#[case::the_same_value(r#"{"image":"a","image":"a"}"#, &["image: given twice"])]
#[case::null_and_a_value(r#"{"image":"a","cpu":null,"cpu":"1"}"#, &["cpu: given twice"])]
#[case::an_unknown_name(
    r#"{"image":"a","cpus":1,"cpus":1}"#,
    &[r#"unknown input "cpus", did you mean "cpu"?"#, "cpus: given twice"]
)]
fn an_input_given_twice_is_refused(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(problems(text), expected);
}

#[rstest]
#[case::plain("a.txt", "a.txt")]
#[case::nested("a/b/c.txt", "a/b/c.txt")]
#[case::spaces("my file (1).txt", "my file (1).txt")]
#[case::leading_dot(".env", ".env")]
#[case::many_dots("a..b...c", "a..b...c")]
#[case::dots_within_a_nested_name("a/..b", "a/..b")]
#[case::non_ascii("größe/日本語/🦀.txt", "größe/日本語/🦀.txt")]
#[case::shell_characters("$(rm -rf ~);'\"*?\\", "$(rm -rf ~);'\"*?\\")]
#[case::newline("a\nb", "a\nb")]
#[case::colon("a:b", "a:b")]
#[case::this_directory("./a/./b", "a/b")]
fn any_valid_path_is_an_input_file(#[case] name: &str, #[case] path: &str) {
    let text = image_and(&format!(r#""in_files":{{{}:"x"}}"#, serde_json::to_string(name).unwrap()));
    assert_eq!(parse(&text).unwrap().in_files, pairs(&[(path, "x")]));
}

#[rstest]
#[case::parent("..", r#"in_files[".."]: must not have .. in it, found "..""#)]
#[case::parent_first("../a", r#"in_files["../a"]: must not have .. in it, found "../a""#)]
#[case::parent_within("a/../b", r#"in_files["a/../b"]: must not have .. in it, found "a/../b""#)]
#[case::parent_last("a/..", r#"in_files["a/.."]: must not have .. in it, found "a/..""#)]
#[case::parent_after_this("./../a", r#"in_files["./../a"]: must not have .. in it, found "./../a""#)]
#[case::absolute("/etc/passwd", r#"in_files["/etc/passwd"]: expected a relative path, found "/etc/passwd""#)]
#[case::empty("", r#"in_files[""]: expected a file's path without an empty segment, found """#)]
#[case::empty_segment("a//b", r#"in_files["a//b"]: expected a file's path without an empty segment, found "a//b""#)]
#[case::trailing_slash("a/", r#"in_files["a/"]: expected a file's path without an empty segment, found "a/""#)]
#[case::this_directory(".", r#"in_files["."]: expected a file's path without an empty segment, found ".""#)]
#[case::nul("a\0b", r#"in_files["a\0b"]: must not contain a NUL character"#)]
#[case::reserved("..data", r#"in_files["..data"]: Kubernetes reserves names that start with .."#)]
#[case::reserved_after_this("./..a", r#"in_files["./..a"]: Kubernetes reserves names that start with .."#)]
fn a_file_name_that_is_not_a_path_within_in_dir_is_refused(#[case] name: &str, #[case] problem: &str) {
    let text = image_and(&format!(r#""in_files":{{{}:"x"}}"#, serde_json::to_string(name).unwrap()));
    assert_eq!(problems(&text), [problem]);
}

#[rstest]
#[case::segment_at_the_limit("a".repeat(255), None)]
#[case::segment_over_the_limit("é".repeat(128), Some("has a name of more than 255 bytes, which Linux does not allow"))]
#[case::path_at_the_limit(["a"; 512].join("/") + "b", None)]
#[case::path_over_the_limit(["a"; 513].join("/"), Some("is 1025 bytes long, at most 1024 are allowed"))]
fn a_file_name_that_is_too_long_for_linux_is_refused(#[case] name: String, #[case] problem: Option<&str>) {
    let found = parse(&image_and(&format!(r#""in_files":{{{name:?}:"x"}}"#)));
    let expected = problem.map(|what| vec![format!("in_files[{name:?}]: {what}")]);
    assert_eq!(found.err().map(|all| all.into_iter().map(|problem| problem.message).collect::<Vec<_>>()), expected);
}

#[rstest]
#[case::the_same_name(r#"{"a":"1","a":"2"}"#, &[r#"in_files["a"]: given twice"#])]
#[case::two_spellings(r#"{"a/b":"1","./a/./b":"2"}"#, &[r#"in_files["a/b"]: given twice"#])]
#[case::a_file_as_directory(
    r#"{"a":"1","a/b":"2"}"#,
    &[r#"in_files["a"]: cannot be a file and the directory of "a/b" at once"#]
)]
#[case::a_file_as_directory_further_down(
    r#"{"a/b/c/d":"1","a-b":"","a/b":"2"}"#,
    &[r#"in_files["a/b"]: cannot be a file and the directory of "a/b/c/d" at once"#]
)]
fn files_that_exclude_each_other_are_refused(#[case] files: &str, #[case] expected: &[&str]) {
    assert_eq!(problems(&image_and(&format!(r#""in_files":{files}"#))), expected);
}

#[test]
fn files_may_have_names_that_begin_alike() {
    let files = parse(&image_and(r#""in_files":{"a":"","ab":"","a.b/c":"","a.b/d":"","a-":""}"#)).unwrap().in_files;
    assert_eq!(files.len(), 5);
}

#[rstest]
#[case::trailing_slash("/in/", "/out//", "/in", "/out")]
#[case::repeated_slashes("//in///deep", "/out", "/in/deep", "/out")]
#[case::this_directory("/./in/.", "/out/./x", "/in", "/out/x")]
#[case::common_start("/data", "/data-out", "/data", "/data-out")]
#[case::side_by_side("/data/in", "/data/out", "/data/in", "/data/out")]
#[case::spaces_and_non_ascii("/my files", "/größe", "/my files", "/größe")]
fn directories_are_normalized(
    #[case] in_dir: &str,
    #[case] out_dir: &str,
    #[case] in_expected: &str,
    #[case] out_expected: &str,
) {
    let inputs = parse(&image_and(&format!(r#""in_dir":{in_dir:?},"out_dir":{out_dir:?}"#))).unwrap();
    assert_eq!((&*inputs.in_dir, &*inputs.out_dir), (in_expected, out_expected));
}

#[rstest]
#[case::relative("in", r#"expected an absolute path, found "in""#)]
#[case::this_directory("./in", r#"expected an absolute path, found "./in""#)]
#[case::parent("/a/../b", r#"must not have .. in it, found "/a/../b""#)]
#[case::parent_last("/a/..", r#"must not have .. in it, found "/a/..""#)]
#[case::nul("/a\0", "must not contain a NUL character")]
#[case::colon("/a:b", r#"Kubernetes does not allow a colon in the path of a volume, found "/a:b""#)]
fn a_directory_is_absolute_and_has_no_parent_in_it(
    #[values("in_dir", "out_dir")] name: &str,
    #[case] directory: &str,
    #[case] problem: &str,
) {
    let text = image_and(&format!(r#""{name}":{}"#, serde_json::to_string(directory).unwrap()));
    assert_eq!(problems(&text), [format!("{name}: {problem}")]);
}

#[rstest]
#[case::the_same(r#""in_dir":"/x","out_dir":"/x""#, "out_dir", "/x", "/x")]
#[case::the_same_but_for_a_slash(r#""in_dir":"/x/","out_dir":"/x""#, "out_dir", "/x", "/x")]
#[case::out_within_in(r#""in_dir":"/x","out_dir":"/x/y/z""#, "out_dir", "/x", "/x/y/z")]
#[case::in_within_out(r#""in_dir":"/x/y","out_dir":"/x""#, "out_dir", "/x/y", "/x")]
#[case::within_the_default(r#""in_dir":"/output/in""#, "in_dir", "/output/in", "/output")]
#[case::the_root(r#""in_dir":"/""#, "in_dir", "/", "/output")]
#[case::the_root_in_other_words(r#""out_dir":"//.""#, "out_dir", "/input", "/")]
fn the_directories_must_not_contain_each_other(
    #[case] fields: &str,
    #[case] name: &str,
    #[case] in_dir: &str,
    #[case] out_dir: &str,
) {
    let problem = format!("{name}: in_dir {in_dir:?} and out_dir {out_dir:?} must not contain each other");
    assert_eq!(problems(&image_and(fields)), [problem]);
}

#[rstest]
#[case::plain("out.txt", "out.txt")]
#[case::nested("a/b.json", "a/b.json")]
#[case::this_directory("./a/./b", "a/b")]
#[case::leading_dots("..a", "..a")]
#[case::colon_and_space("a: b", "a: b")]
fn a_result_file_is_any_path_within_out_dir(#[case] given: &str, #[case] path: &str) {
    assert_eq!(parse(&image_and(&format!(r#""out_path":{given:?}"#))).unwrap().out_path, path);
}

#[rstest]
#[case::absolute("/output/a", r#"out_path: expected a relative path, found "/output/a""#)]
#[case::parent("../a", r#"out_path: must not have .. in it, found "../a""#)]
#[case::parent_within("a/../b", r#"out_path: must not have .. in it, found "a/../b""#)]
#[case::empty_segment("a//b", r#"out_path: expected a file's path without an empty segment, found "a//b""#)]
#[case::directory("a/", r#"out_path: expected a file's path without an empty segment, found "a/""#)]
fn a_result_file_outside_out_dir_is_refused(#[case] path: &str, #[case] problem: &str) {
    assert_eq!(problems(&image_and(&format!(r#""out_path":{path:?}"#))), [problem]);
}

#[rstest]
#[case(r#""cpu":"100m""#, "100m", "128Mi")]
#[case(r#""cpu":"1.5""#, "1.5", "128Mi")]
#[case(r#""cpu":2"#, "2", "128Mi")]
#[case(r#""cpu":0.25"#, "0.25", "128Mi")]
#[case(r#""memory":"1Mi""#, "250m", "1Mi")]
#[case(r#""memory":"0.5Gi""#, "250m", "0.5Gi")]
#[case(r#""memory":"1e9""#, "250m", "1e9")]
#[case(r#""memory":134217728"#, "250m", "134217728")]
#[case(r#""memory":1048576"#, "250m", "1048576")]
fn a_quantity_is_a_string_or_a_number(#[case] fields: &str, #[case] cpu: &str, #[case] memory: &str) {
    let inputs = parse(&image_and(fields)).unwrap();
    assert_eq!((&*inputs.cpu, &*inputs.memory), (cpu, memory));
}

#[rstest]
#[case(r#""0""#, r#"must be more than zero, found "0""#)]
#[case("0", r#"must be more than zero, found "0""#)]
#[case("-1", r#"must be more than zero, found "-1""#)]
#[case(r#""1 core""#, r#"expected a Kubernetes quantity such as "250m" or "0.5", found "1 core""#)]
#[case(r#""500mCPU""#, r#"expected a Kubernetes quantity such as "250m" or "0.5", found "500mCPU""#)]
#[case(r#"" 1""#, r#"expected a Kubernetes quantity such as "250m" or "0.5", found " 1""#)]
fn what_is_not_an_amount_of_cpu_is_refused(#[case] cpu: &str, #[case] problem: &str) {
    assert_eq!(problems(&image_and(&format!(r#""cpu":{cpu}"#))), [format!("cpu: {problem}")]);
}

#[rstest]
#[case::milli(r#""500m""#, r#""500m" is less than 1 MiB, too little for any container; did you mean "500Mi"?"#)]
#[case::no_unit("512", r#""512" is less than 1 MiB, too little for any container; did you mean "512Mi"?"#)]
#[case::kibi(r#""64Ki""#, r#""64Ki" is less than 1 MiB, too little for any container; did you mean "64Mi"?"#)]
#[case::fraction(r#""0.5Mi""#, r#""0.5Mi" is less than 1 MiB, too little for any container"#)]
#[case::exponent("1e3", r#""1e3" is less than 1 MiB, too little for any container"#)]
#[case::zero("0", r#""0" is less than 1 MiB, too little for any container"#)]
#[case::negative(r#""-1Gi""#, r#""-1Gi" is less than 1 MiB, too little for any container"#)]
#[case::unit(r#""128MB""#, r#"expected a Kubernetes quantity such as "128Mi" or "1Gi", found "128MB""#)]
#[case::lower_case(r#""128mi""#, r#"expected a Kubernetes quantity such as "128Mi" or "1Gi", found "128mi""#)]
fn an_amount_of_memory_that_is_too_small_is_refused(#[case] memory: &str, #[case] problem: &str) {
    assert_eq!(problems(&image_and(&format!(r#""memory":{memory}"#))), [format!("memory: {problem}")]);
}

#[rstest]
#[case("90s", 90)]
#[case("10m", 600)]
#[case("1h30m", 5400)]
#[case("1h 30m", 5400)]
#[case("2days", 172_800)]
fn a_duration_has_its_units(#[case] text: &str, #[case] seconds: u64) {
    let inputs = parse(&image_and(&format!(r#""timeout":{text:?},"start_timeout":{text:?}"#))).unwrap();
    let duration = Duration::from_secs(seconds);
    assert_eq!((inputs.timeout, inputs.start_timeout), (Some(duration), duration));
}

#[rstest]
#[case::number("90", r#"expected a duration such as "90s" or "10m", found a number"#)]
#[case::no_unit(r#""90""#, r#"expected a duration such as "90s" or "10m", found "90""#)]
#[case::negative(r#""-5s""#, r#"expected a duration such as "90s" or "10m", found "-5s""#)]
#[case::words(r#""ten minutes""#, r#"expected a duration such as "90s" or "10m", found "ten minutes""#)]
#[case::too_large(
    r#""99999999999999999999s""#,
    r#"expected a duration such as "90s" or "10m", found "99999999999999999999s""#
)]
#[case::zero(r#""0s""#, "must be longer than zero")]
fn what_is_not_a_duration_is_refused(
    #[values("timeout", "start_timeout")] name: &str,
    #[case] value: &str,
    #[case] problem: &str,
) {
    assert_eq!(problems(&image_and(&format!(r#""{name}":{value}"#))), [format!("{name}: {problem}")]);
}

#[rstest]
#[case::letter("team-1", true)]
#[case::digit_first("1team", true)]
#[case::longest(&"a".repeat(63), true)]
#[case::too_long(&"a".repeat(64), false)]
#[case::upper_case("Team", false)]
#[case::dot("a.b", false)]
#[case::underscore("a_b", false)]
#[case::hyphen_first("-a", false)]
#[case::hyphen_last("a-", false)]
#[case::slash("a/b", false)]
#[case::space(" ", false)]
#[case::non_ascii("ä", false)]
fn a_namespace_is_a_dns_label(#[case] namespace: &str, #[case] valid: bool) {
    let found = parse(&image_and(&format!(r#""namespace":{namespace:?}"#)));
    let rule = "expected a DNS label (at most 63 of a-z, 0-9 and -, not - at either end)";
    match found {
        Ok(inputs) => assert!(valid && inputs.namespace == namespace),
        Err(problems) => {
            assert!(!valid);
            assert_eq!(problems.first().unwrap().message, format!("namespace: {rule}, found {namespace:?}"));
        }
    }
}

#[rstest]
#[case::service_account(
    r#""service_account":"Build""#,
    r#"service_account: expected the name of a Kubernetes object (a-z, 0-9, - and .), found "Build""#
)]
#[case::empty_secret(
    r#""image_pull_secrets":["a",""]"#,
    r#"image_pull_secrets[1]: expected the name of a Kubernetes object (a-z, 0-9, - and .), found """#
)]
#[case::secret_with_an_empty_part(
    r#""image_pull_secrets":["a..b"]"#,
    r#"image_pull_secrets[0]: expected the name of a Kubernetes object (a-z, 0-9, - and .), found "a..b""#
)]
fn names_of_kubernetes_objects_are_checked(#[case] fields: &str, #[case] problem: &str) {
    assert_eq!(problems(&image_and(fields)), [problem]);
}

const NAME_RULE: &str = "expected a variable name of letters, digits, _, - and ., with no digit first";
const NAME_TAKEN: &str = "is set by the app and can't be changed";

#[rstest]
#[case::usual("PATH_2", None)]
#[case::lower_case("http_proxy", None)]
#[case::dots_and_hyphens("_a.b-c", None)]
#[case::empty("", Some(NAME_RULE))]
#[case::digit_first("1A", Some(NAME_RULE))]
#[case::equals("A=B", Some(NAME_RULE))]
#[case::space("A B", Some(NAME_RULE))]
#[case::non_ascii("Ä", Some(NAME_RULE))]
#[case::input_dir(env::INPUT_DIR, Some(NAME_TAKEN))]
#[case::output_dir(env::OUTPUT_DIR, Some(NAME_TAKEN))]
#[case::result_path(env::RESULT_PATH, Some(NAME_TAKEN))]
fn a_variables_name_is_checked(#[case] name: &str, #[case] problem: Option<&str>) {
    let found = parse(&image_and(&format!(r#""env":{{{name:?}:"x"}}"#)));
    match problem {
        None => assert_eq!(found.unwrap().env, pairs(&[(name, "x")])),
        Some(what) => {
            assert_eq!(found.unwrap_err().first().unwrap().message, format!("env[{name:?}]: {what}"));
        }
    }
}

#[rstest]
#[case(r#""command":["a","b\u0000"]"#, "command[1]: must not contain a NUL character")]
#[case(r#""args":["\u0000"]"#, "args[0]: must not contain a NUL character")]
#[case(r#""env":{"A":"\u0000"}"#, r#"env["A"]: must not contain a NUL character"#)]
fn a_nul_character_is_refused_where_a_process_cannot_take_it(#[case] fields: &str, #[case] problem: &str) {
    assert_eq!(problems(&image_and(fields)), [problem]);
}

#[test]
fn a_files_content_is_any_text() {
    let text = image_and(r#""in_files":{"a":"\u0000\r\n\ufeff\ud83e\udd80"}"#);
    assert_eq!(parse(&text).unwrap().in_files, pairs(&[("a", "\0\r\n\u{feff}🦀")]));
}

#[rstest]
#[case::array("[]", "an array")]
#[case::string(r#""image""#, "a string")]
#[case::number("1", "a number")]
#[case::boolean("true", "a boolean")]
#[case::null("null", "null")]
fn inputs_that_are_not_an_object_are_refused(#[case] text: &str, #[case] kind: &str) {
    assert_eq!(problems(text), [format!("inputs: expected an object, found {kind}")]);
}

#[rstest]
#[case::empty("")]
#[case::white_space(" \n")]
#[case::not_json("image = \"a\"")]
#[case::cut_off(r#"{"image":"a""#)]
#[case::trailing_comma(r#"{"image":"a",}"#)]
#[case::more_after_the_object(r#"{"image":"a"}{}"#)]
#[case::byte_order_mark("\u{feff}{}")]
#[case::no_value(r#"{"image":}"#)]
fn inputs_that_are_not_json_are_refused(#[case] text: &str) {
    let problem = only_problem(text);
    assert!(problem.starts_with("inputs: not valid JSON: "), "{problem}");
}

#[rstest]
#[case::a_field(r#"{"image":"\ud800"}"#, "image: not valid JSON: ")]
#[case::an_item(r#"{"image":"a","args":["\udc00"]}"#, "args[0]: not valid JSON: ")]
#[case::an_entry(r#"{"image":"a","env":{"A":"\ud800x"}}"#, r#"env["A"]: not valid JSON: "#)]
fn half_a_character_is_refused_where_it_stands(#[case] text: &str, #[case] start: &str) {
    let problem = only_problem(text);
    assert!(problem.starts_with(start), "{problem}");
}

#[rstest]
#[case::the_whole(|nest: String| nest)]
#[case::a_field(|nest: String| image_and(&format!(r#""cpu":{nest}"#)))]
#[case::an_item(|nest: String| image_and(&format!(r#""args":[{nest}]"#)))]
#[case::an_unknown_field(|nest: String| image_and(&format!(r#""x":{nest}"#)))]
fn deep_nesting_is_refused_like_any_other_mistake(#[case] text: fn(String) -> String) {
    let depth = 100_000;
    assert_eq!(problems(&text("[".repeat(depth) + &"]".repeat(depth))).len(), 1);
    assert_eq!(problems(&text(r#"{"image":"#.repeat(depth) + "1" + &"}".repeat(depth))).len(), 1);
}

/// JSON text in which the names of inputs are frequent and sometimes given twice.
fn any_json() -> impl Strategy<Value = String> {
    let names: Vec<String> = schema_names().into_iter().collect();
    let string = prop_oneof![
        any::<String>(),
        "[-./a-z0-9A-Z ]{0,8}",
        prop::sample::select(vec!["/input", "/", "..", "90s", "1e3", "500m", "1Gi", "\0"]).prop_map(String::from),
    ]
    .prop_map(|text| serde_json::to_string(&text).unwrap());
    let leaf = prop_oneof![
        3 => string.clone(),
        1 => any::<f32>().prop_filter("JSON has no other", |n| n.is_finite()).prop_map(|n| n.to_string()),
        1 => any::<i64>().prop_map(|n| n.to_string()),
        1 => prop::sample::select(vec!["null", "true", "false", r#""\ud800""#]).prop_map(String::from),
    ];
    let key = prop_oneof![2 => prop::sample::select(names).prop_map(|name| format!("{name:?}")), 1 => string];
    leaf.prop_recursive(3, 40, 8, move |value| {
        let entry = (key.clone(), value.clone()).prop_map(|(key, value)| format!("{key}: {value}"));
        prop_oneof![
            prop::collection::vec(value, 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(entry, 0..8).prop_map(|entries| format!("{{{}}}", entries.join(", "))),
        ]
    })
}

/// Names of files, most of them nearly right.
fn any_name() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => "[ab]",
        1 => prop::sample::select(vec!["", ".", "..", "..a", "a b", "ü", "\\", "\0", "/"]).prop_map(String::from),
        1 => any::<String>(),
    ];
    prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("/"))
}

/// Whether a path is relative and has no `.`, no `..` and no empty segment.
fn stays_below(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String) {
        let _ = parse(&text);
    }

    #[test]
    fn any_json_is_read_or_refused_with_messages_that_name_the_input(text in any_json()) {
        for problem in parse(&text).err().into_iter().flatten() {
            let name = problem.path.first().map_or("inputs", String::as_str);
            prop_assert!(
                problem.message.contains(name) || problem.message.contains(&format!("{name:?}")),
                "{problem:?}"
            );
        }
    }

    #[test]
    fn no_file_escapes_its_directory(names in prop::collection::vec(any_name(), 0..4), out_path in any_name()) {
        let json = |text: &String| serde_json::to_string(text).unwrap();
        let entries: Vec<String> = names.iter().map(|name| json(name) + r#":"x""#).collect();
        if let Ok(inputs) = parse(&image_and(&format!(r#""in_files":{{{}}}"#, entries.join(",")))) {
            let files: BTreeSet<&str> = inputs.in_files.iter().map(|(name, _)| &**name).collect();
            prop_assert_eq!(files.len(), names.len());
            prop_assert!(files.into_iter().all(stays_below), "{:?}", inputs.in_files);
        }
        if let Ok(inputs) = parse(&image_and(&format!(r#""out_path":{}"#, json(&out_path)))) {
            prop_assert!(stays_below(&inputs.out_path), "{:?}", inputs.out_path);
        }
    }
}

#[test]
fn a_required_input_that_was_mistyped_is_one_problem() {
    assert_eq!(problems(r#"{"imge": "a"}"#), ["unknown input \"imge\", did you mean \"image\"?"]);
    assert_eq!(problems(r#"{"picture": "a"}"#).last().unwrap(), "image: required, but missing or empty");
}

#[test]
fn too_many_names_are_refused_in_one_message() {
    let names: Vec<String> = (0..101).map(|number| format!("\"n{number}\": 1")).collect();
    let text = format!("{{{}}}", names.join(","));
    assert_eq!(problems(&text), ["inputs: expected at most 100 names, found 101"]);
}
