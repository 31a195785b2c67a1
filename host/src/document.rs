//! The result documents that the plugin gives, as far as the host looks into them, and those of its own.

use serde::Deserialize;
use std::borrow::Cow;
use std::time::SystemTime;

/// The outcome of a call that the plugin has no handler for.
pub(crate) const UNKNOWN_HANDLER: &str = "UnknownHandler";

/// The longest first word: a plugin may invent one.
const LONGEST_WORD: usize = 40;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    hops: Hops<'a>,
}

#[derive(Deserialize)]
struct Hops<'a> {
    started_at: &'a str,
    finished_at: &'a str,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
}

/// The stable word for how the call ended; none if the text is no result document.
pub(crate) fn outcome(text: &str) -> Option<String> {
    let document: Document = serde_json::from_str(text).ok()?;
    Some(first_word(document.hops.error.as_deref()).to_owned())
}

/// The stable first word of a result's error, `Completed` without an error.
pub(crate) fn first_word(error: Option<&str>) -> &str {
    let Some(error) = error else { return "Completed" };
    let is_word = |word: &str| {
        (1..=LONGEST_WORD).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    match error.split_once(':') {
        Some((word, _)) if is_word(word) => word,
        _ => "Error",
    }
}

/// The result of a call that has nothing but this error.
pub(crate) fn errored(started: SystemTime, error: &str) -> String {
    let time = |time| humantime::format_rfc3339_millis(time).to_string();
    write(&time(started), &time(SystemTime::now()), error)
}

/// The result of the same call, with this error instead of what it held.
pub(crate) fn replaced(text: &str, error: &str) -> String {
    match serde_json::from_str::<Document>(text) {
        Ok(document) => write(document.hops.started_at, document.hops.finished_at, error),
        Err(_) => errored(SystemTime::now(), error),
    }
}

fn write(started_at: &str, finished_at: &str, error: &str) -> String {
    let hops = serde_json::json!({"started_at": started_at, "finished_at": finished_at, "error": error});
    serde_json::json!({"hops": hops, "errored": true, "completed": false, "done": true, "body": "", "json": null})
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    /// Texts that are nearly result documents.
    fn any_document() -> impl Strategy<Value = String> {
        let time = prop_oneof![
            8 => Just(json!("2023-11-13T23:57:20.336Z")),
            1 => any::<String>().prop_map(Value::from),
            1 => Just(Value::Null),
        ];
        let error = prop_oneof![
            4 => "[A-Z]?[a-z]?:.*".prop_map(Value::from),
            1 => any::<String>().prop_map(Value::from),
            1 => Just(Value::Null),
        ];
        (time.clone(), time, error, any::<String>()).prop_map(|(started, finished, error, body)| {
            json!({"hops": {"started_at": started, "finished_at": finished, "error": error}, "body": body}).to_string()
        })
    }

    proptest! {
        #[test]
        fn any_result_has_a_stable_word_or_is_none(text in prop_oneof![any::<String>(), any_document()]) {
            if let Some(word) = outcome(&text) {
                prop_assert!(!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{word:?}");
            }
        }

        #[test]
        fn any_result_can_be_replaced(text in prop_oneof![any::<String>(), any_document()], error: String) {
            let replaced: Value = serde_json::from_str(&replaced(&text, &error)).unwrap();
            prop_assert_eq!(&replaced["hops"]["error"], &error);
            prop_assert_eq!((&replaced["errored"], &replaced["completed"], &replaced["done"]), (&true.into(), &false.into(), &true.into()));
            prop_assert_eq!((&replaced["body"], &replaced["json"]), (&"".into(), &Value::Null));
        }
    }

    #[rstest]
    #[case(None, "Completed")]
    #[case(Some("AWordThatIsNoWordButASentenceWithoutSpaces: so it seems"), "Error")]
    #[case(Some("Error: container exited with code 3"), "Error")]
    #[case(Some(": no word"), "Error")]
    #[case(Some("ImagePullBackOff: no such image"), "ImagePullBackOff")]
    #[case(Some("all went wrong: utterly"), "Error")]
    #[case(Some("nothing"), "Error")]
    fn the_first_word_is_one_word(#[case] error: Option<&str>, #[case] expected: &str) {
        assert_eq!(first_word(error), expected);
    }

    #[test]
    fn a_result_may_be_nested_as_deep_as_it_likes() {
        let text = replaced("", "Timeout: x").replace("null", &("[".repeat(100_000) + &"]".repeat(100_000)));
        assert_eq!(outcome(&text).as_deref(), Some("Timeout"));
    }
}
