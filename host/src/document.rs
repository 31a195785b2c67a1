//! The result documents of plugins, as far as the host reads them, and those that the host writes itself.

use crate::shared::document::{Document, Hops, timestamp};
use std::time::SystemTime;

/// The outcome of a call that the plugin has no handler for.
pub(crate) const UNKNOWN_HANDLER: &str = "UnknownHandler";

/// The longest first word: a plugin may invent one.
const LONGEST_WORD: usize = 40;

/// The stable word for how the call ended; `None` if the text is not a result document.
pub(crate) fn outcome(text: &str) -> Option<String> {
    let document: Document = serde_json::from_str(text).ok()?;
    Some(first_word(document.hops.error.as_deref()).to_owned())
}

/// The stable first word of a result's error, `Completed` without an error.
pub(crate) fn first_word(error: Option<&str>) -> &str {
    let Some(error) = error else { return "Completed" };
    let is_word =
        |word: &str| (1..=LONGEST_WORD).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match error.split_once(':') {
        Some((word, _)) if is_word(word) => word,
        _ => "Error",
    }
}

/// The document of a call whose plugin gave none.
pub(crate) fn errored(started: SystemTime, error: &str) -> String {
    write(&timestamp(started), &timestamp(SystemTime::now()), error)
}

/// The document of the same call, with this error in place of its result.
pub(crate) fn replaced(text: &str, error: &str) -> String {
    match serde_json::from_str::<Document>(text) {
        Ok(document) => write(&document.hops.started_at, &document.hops.finished_at, error),
        Err(_) => errored(SystemTime::now(), error),
    }
}

fn write(started_at: &str, finished_at: &str, error: &str) -> String {
    let hops = Hops { started_at: started_at.into(), finished_at: finished_at.into(), error: Some(error.into()) };
    // Text alone: nothing in it can fail to be written.
    serde_json::to_string(&Document::new(hops, "", None)).unwrap_or_default()
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
            let hops = json!({"started_at": started, "finished_at": finished, "error": error});
            json!({"hops": hops, "errored": true, "completed": false, "done": true, "body": body, "json": null})
                .to_string()
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
    fn a_replaced_result_keeps_its_times_and_the_order_of_the_fields() {
        let text = r#"{"hops":{"started_at":"a","finished_at":"b","error":null},"errored":false,"completed":true,"done":true,"body":"x","json":null}"#;
        assert_eq!(
            replaced(text, "Timeout: x"),
            r#"{"hops":{"started_at":"a","finished_at":"b","error":"Timeout: x"},"errored":true,"completed":false,"done":true,"body":"","json":null}"#
        );
    }

    #[test]
    fn a_text_without_all_the_fields_is_not_a_result() {
        assert_eq!(outcome(r#"{"hops":{"started_at":"a","finished_at":"b","error":null},"errored":false}"#), None);
    }

    #[test]
    fn a_result_may_be_nested_as_deep_as_it_likes() {
        let text = replaced("", "Timeout: x").replace("null", &("[".repeat(100_000) + &"]".repeat(100_000)));
        assert_eq!(outcome(&text).as_deref(), Some("Timeout"));
    }
}
