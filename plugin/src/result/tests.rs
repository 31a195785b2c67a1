#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;
use rstest::rstest;
use serde::Deserialize;

/// The times of the published example.
const STARTED: Duration = Duration::from_millis(1_699_919_840_336);
const FINISHED: Duration = Duration::from_millis(1_699_919_858_869);

/// A result document, parsed again. It has these fields and no others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parsed<'a> {
    hops: ParsedHops,
    errored: bool,
    completed: bool,
    done: bool,
    body: String,
    #[serde(borrow)]
    json: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParsedHops {
    started_at: String,
    finished_at: String,
    error: Option<String>,
}

impl<'a> Parsed<'a> {
    fn of(document: &'a str) -> Self {
        serde_json::from_str(document).unwrap()
    }

    fn json(&self) -> Option<&'a str> {
        self.json.map(RawValue::get)
    }
}

fn document(result: &CallResult) -> String {
    result.document(STARTED, FINISHED)
}

#[rstest]
#[case::json(
    CallResult::of_file("result.json", br#"{ "greeting": "Hello World!" }"#.to_vec()),
    r#""error":null},"errored":false,"completed":true,"done":true,"body":"","json":{ "greeting": "Hello World!" }}"#
)]
#[case::text(
    CallResult::of_file("result.json", b"Hello \"World\"!\n".to_vec()),
    r#""error":null},"errored":false,"completed":true,"done":true,"body":"Hello \"World\"!\n","json":null}"#
)]
#[case::no_file(
    CallResult::default(),
    r#""error":null},"errored":false,"completed":true,"done":true,"body":"","json":null}"#
)]
#[case::failure(
    CallResult::failed("Error: container exited with code 3\nlog".into()),
    r#""error":"Error: container exited with code 3\nlog"},"errored":true,"completed":false,"done":true,"body":"","json":null}"#
)]
#[case::failure_with_a_file(
    CallResult { error: Some("Timeout: x".into()), ..CallResult::of_file("result.json", b"[1]".to_vec()) },
    r#""error":"Timeout: x"},"errored":true,"completed":false,"done":true,"body":"","json":[1]}"#
)]
fn a_document_has_the_fields_of_the_published_example(#[case] result: CallResult, #[case] rest: &str) {
    let start = r#"{"hops":{"started_at":"2023-11-13T23:57:20.336Z","finished_at":"2023-11-13T23:57:38.869Z","#;
    assert_eq!(document(&result), format!("{start}{rest}"));
}

#[rstest]
#[case::on_the_second(Duration::from_secs(1_700_000_000), "2023-11-14T22:13:20.000Z")]
#[case::one_millisecond(Duration::new(1_700_000_000, 1_000_000), "2023-11-14T22:13:20.001Z")]
#[case::finer_than_milliseconds(Duration::new(1_700_000_000, 999_999_999), "2023-11-14T22:13:20.999Z")]
#[case::leap_day(Duration::from_secs(1_709_164_800), "2024-02-29T00:00:00.000Z")]
#[case::a_clock_that_was_never_set(Duration::ZERO, "1970-01-01T00:00:00.000Z")]
fn times_are_utc_with_milliseconds(#[case] time: Duration, #[case] text: &str) {
    let document = CallResult::default().document(time, time);
    let hops = Parsed::of(&document).hops;
    assert_eq!((&*hops.started_at, &*hops.finished_at), (text, text));
}

#[rstest]
#[case::object(r#"{"a":1}"#)]
#[case::array("[1,2]")]
#[case::empty_object("{}")]
#[case::empty_array("[]")]
#[case::key_order(r#"{"z":1,"a":2,"m":3}"#)]
#[case::big_integer(r#"{"n":12345678901234567890123}"#)]
#[case::trailing_zero("[1.10,1.0,1e5,1E+05,-0]")]
#[case::out_of_a_doubles_range("[1e999,123e-999]")]
#[case::duplicate_keys(r#"{"a":1,"a":2}"#)]
#[case::escapes(r#"{"a":"\u00fc\/\ud83e\udd80"}"#)]
#[case::half_a_character(r#"{"a":"\ud800"}"#)]
#[case::non_ascii(r#"{"größe":"🦀"}"#)]
#[case::white_space_within("{ \"a\" :\r\n\t[ 1 , 2 ]\n}")]
fn an_object_or_array_keeps_its_own_text(#[case] text: &str, #[values("result.json", "out.txt", "out")] path: &str) {
    let document = document(&CallResult::of_file(path, text.into()));
    let parsed = Parsed::of(&document);
    assert_eq!((parsed.json(), &*parsed.body), (Some(text), ""));
}

#[rstest]
#[case::newline("{\"a\":1}\n", r#"{"a":1}"#)]
#[case::all_kinds(" \t\r\n[1]\n \t\r", "[1]")]
fn white_space_around_json_is_not_part_of_it(#[case] text: &str, #[case] json: &str) {
    let document = document(&CallResult::of_file("result.json", text.into()));
    assert_eq!(Parsed::of(&document).json(), Some(json));
}

#[rstest]
#[case::string(r#""text""#)]
#[case::empty_string(r#""""#)]
#[case::integer("42")]
#[case::fraction("1.10")]
#[case::big_integer("12345678901234567890123")]
#[case::negative("-1")]
#[case::yes("true")]
#[case::no("false")]
fn a_scalar_is_json_only_where_the_files_name_says_so(#[case] text: &str) {
    for path in ["result.json", "a/b.json", ".json"] {
        let document = document(&CallResult::of_file(path, format!("{text}\n").into()));
        let parsed = Parsed::of(&document);
        assert_eq!((parsed.json(), &*parsed.body), (Some(text), ""), "{path}");
    }
    for path in ["result.txt", "result", "json", "result.json.txt", "a.json/b"] {
        let document = document(&CallResult::of_file(path, format!("{text}\n").into()));
        let parsed = Parsed::of(&document);
        assert_eq!((parsed.json(), parsed.body), (None, format!("{text}\n")), "{path}");
    }
}

#[rstest]
#[case::plain("Hello World!")]
#[case::empty("")]
#[case::white_space(" \n")]
#[case::null("null")]
#[case::null_and_newline("null\n")]
#[case::trailing_newlines("a\n\n")]
#[case::windows_newlines("a\r\nb\r\n")]
#[case::byte_order_mark("\u{feff}a")]
#[case::byte_order_mark_before_json("\u{feff}{}")]
#[case::nul("a\0b\0")]
#[case::control_characters("\x01\x08\x0b\x0c\x1b[31mred\x1b[0m\x7f\u{85}")]
#[case::quotes_and_backslashes(r#"C:\dir "x" \u0041"#)]
#[case::line_separators("a\u{2028}b\u{2029}")]
#[case::non_ascii("größe 日本語 🦀")]
#[case::noncharacters("\u{fffd}\u{ffff}\u{10ffff}")]
#[case::json_cut_off(r#"{"a":1"#)]
#[case::json_with_a_comment("{} // done")]
#[case::json_with_a_trailing_comma("[1,]")]
#[case::json_in_single_quotes("{'a':1}")]
#[case::json_with_a_control_character("{\"a\":\"\x01\"}")]
#[case::json_in_other_white_space("\u{a0}{}")]
#[case::two_documents("{}\n{}\n")]
#[case::not_a_number("NaN")]
#[case::leading_zero("007")]
#[case::word("trueish")]
fn other_text_is_the_body_byte_for_byte(#[case] text: &str, #[values("result.json", "out.txt")] path: &str) {
    let document = document(&CallResult::of_file(path, text.into()));
    let parsed = Parsed::of(&document);
    assert_eq!((parsed.json(), &*parsed.body), (None, text));
    assert!(parsed.completed && !parsed.errored && parsed.done);
}

#[rstest]
#[case::arrays("[", "]")]
#[case::objects(r#"{"a":"#, "}")]
fn nesting_may_be_as_deep_as_it_likes(#[case] open: &str, #[case] close: &str) {
    let text = open.repeat(100_000) + "[]" + &close.repeat(100_000);
    let document = document(&CallResult::of_file("result.json", text.clone().into()));
    assert_eq!(Parsed::of(&document).json(), Some(&*text));
}

#[test]
fn nesting_that_is_not_closed_is_text() {
    let text = "[".repeat(100_000);
    let document = document(&CallResult::of_file("result.json", text.clone().into()));
    assert_eq!(Parsed::of(&document).body, text);
}

#[rstest]
#[case::first_byte(b"\xff", 1, 0)]
#[case::latin_1(b"gr\xf6\xdfe", 5, 2)]
#[case::cut_off_character("abc🦀".as_bytes().split_last().unwrap().1, 6, 3)]
#[case::encoded_surrogate(b"a\xed\xa0\x80", 4, 1)]
#[case::overlong(b"\xc0\x80", 2, 0)]
#[case::utf_16(b"\xff\xfea\0", 4, 0)]
#[case::within_json(b"{\"a\":\"\xff\"}", 9, 6)]
fn a_file_that_is_not_utf_8_is_refused_with_its_size_and_the_offset(
    #[case] bytes: &[u8],
    #[case] size: usize,
    #[case] offset: usize,
) {
    let document = document(&CallResult::of_file("result.json", bytes.to_vec()));
    let parsed = Parsed::of(&document);
    let error =
        format!("InvalidResult: the result file is not UTF-8: {size} bytes, the first bad one at offset {offset}");
    assert_eq!((parsed.json(), &*parsed.body), (None, ""));
    assert_eq!(parsed.hops.error, Some(error));
    assert!(parsed.errored && !parsed.completed && parsed.done);
}

/// Texts, about half of them JSON.
fn any_text() -> impl Strategy<Value = String> {
    let string = any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
    let leaf = prop_oneof![string.clone(), "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,9})?(e[+-]?[0-9]{1,4})?", "true|null"];
    let json = leaf.prop_recursive(4, 20, 5, move |value| {
        let entry = (string.clone(), value.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
        prop_oneof![
            prop::collection::vec(value, 0..5).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec(entry, 0..5).prop_map(|entries| format!("{{{}}}", entries.join(",\n"))),
        ]
    });
    prop_oneof![
        any::<String>(),
        "[\\x00-\\x7f]{0,300}",
        "[\\x00-\\x1f\"\\\\]{0,2000}",
        ("[ \t\r\n]{0,3}", json, "[ \t\r\n]{0,3}").prop_map(|(before, json, after)| before + &json + &after),
    ]
}

proptest! {
    #[test]
    fn a_document_contains_the_file_once_and_is_allocated_once(
        text in any_text(),
        path in prop::sample::select(vec!["result.json", "out.txt"]),
        error in prop::option::of(any_text()),
    ) {
        let result = CallResult { error, ..CallResult::of_file(path, text.clone().into()) };
        let document = document(&result);

        let parsed = Parsed::of(&document);
        match parsed.json() {
            Some(json) => {
                prop_assert_eq!(json, text.trim_matches([' ', '\t', '\r', '\n']));
                prop_assert_eq!(&parsed.body, "");
            }
            None => prop_assert_eq!(&parsed.body, &text),
        }
        prop_assert_eq!(parsed.errored, result.error.is_some());
        prop_assert_eq!(parsed.completed, result.error.is_none());
        prop_assert_eq!(&parsed.hops.error, &result.error);

        // A buffer that was too small would have been doubled.
        let error = result.error.as_deref().unwrap_or_default();
        let enough = text.len() + escapes(&text) + error.len() + escapes(error) + 512;
        prop_assert!(document.capacity() <= enough, "{} > {enough}", document.capacity());
    }

    #[test]
    fn any_bytes_give_a_document(bytes: Vec<u8>) {
        let document = document(&CallResult::of_file("result.json", bytes.clone()));
        prop_assert_eq!(Parsed::of(&document).completed, std::str::from_utf8(&bytes).is_ok());
    }
}
