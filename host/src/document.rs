//! Results of calls: the text of the result document, and what it says.

pub use crate::shared::document::{Document, Hops};

use crate::shared::document::timestamp;
use std::fmt;
use std::time::SystemTime;

/// The longest first word of an error: a plugin may invent one.
const LONGEST_WORD: usize = 40;

/// The result of a call.
///
/// It is the result document as the plugin wrote it, byte for byte; [`document`](Self::document) has its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallResult {
    text: String,
    outcome: String,
}

impl CallResult {
    /// Reads a result document.
    ///
    /// # Errors
    /// The text, if it is not a result document.
    pub fn parse(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        let Ok(document) = serde_json::from_str::<Document>(&text) else { return Err(text) };
        let outcome = first_word(document.hops.error.as_deref()).to_owned();
        Ok(CallResult { text, outcome })
    }

    /// The result of a call that began at `started`, ends now, and has nothing but this error: a stable word, a colon and a
    /// sentence.
    pub fn errored(started: SystemTime, error: &str) -> Self {
        Self::write(&timestamp(started), &timestamp(SystemTime::now()), error)
    }

    /// The result of the same call, with this error in place of its content.
    #[must_use]
    pub fn replaced(&self, error: &str) -> Self {
        let Hops { started_at, finished_at, .. } = self.document().hops;
        Self::write(&started_at, &finished_at, error)
    }

    fn write(started_at: &str, finished_at: &str, error: &str) -> Self {
        let hops = Hops { started_at: started_at.into(), finished_at: finished_at.into(), error: Some(error.into()) };
        let text = serde_json::to_string(&Document::new(hops, "", None)).unwrap_or_default();
        CallResult { text, outcome: first_word(Some(error)).into() }
    }

    /// The text of the result document.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of the result document.
    pub fn into_text(self) -> String {
        self.text
    }

    /// The stable word for how the call ended: the first of the document's error, `Completed` without an error.
    pub fn outcome(&self) -> &str {
        &self.outcome
    }

    /// The fields of the result document.
    pub fn document(&self) -> Document<'_> {
        // Only texts that can be read become results, so the stand-in is never seen.
        serde_json::from_str(&self.text).unwrap_or_else(|error| {
            let hops = Hops { started_at: "".into(), finished_at: "".into(), error: Some(error.to_string().into()) };
            Document::new(hops, "", None)
        })
    }
}

/// The text of the result document.
impl fmt::Display for CallResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The stable first word of a result's error, `Completed` without an error.
fn first_word(error: Option<&str>) -> &str {
    let Some(error) = error else { return "Completed" };
    let is_word =
        |word: &str| (1..=LONGEST_WORD).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match error.split_once(':') {
        Some((word, _)) if is_word(word) => word,
        _ => "Error",
    }
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
            if let Ok(result) = CallResult::parse(text) {
                let word = result.outcome();
                prop_assert!(!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{word:?}");
            }
        }

        #[test]
        fn any_result_can_be_replaced(text in any_document(), error: String) {
            let result = CallResult::parse(text).unwrap_or_else(|_| CallResult::errored(SystemTime::now(), "Error: x"));
            let replaced: Value = serde_json::from_str(result.replaced(&error).text()).unwrap();
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
            CallResult::parse(text).unwrap().replaced("Timeout: x").text(),
            r#"{"hops":{"started_at":"a","finished_at":"b","error":"Timeout: x"},"errored":true,"completed":false,"done":true,"body":"","json":null}"#
        );
    }

    #[test]
    fn a_text_without_all_the_fields_is_not_a_result() {
        let text = r#"{"hops":{"started_at":"a","finished_at":"b","error":null},"errored":false}"#;
        assert_eq!(CallResult::parse(text), Err(text.into()));
    }

    #[test]
    fn a_result_may_be_nested_as_deep_as_it_likes() {
        let result = CallResult::errored(SystemTime::now(), "Timeout: x");
        let text = result.text().replace("null", &("[".repeat(100_000) + &"]".repeat(100_000)));
        assert_eq!(CallResult::parse(text).unwrap().outcome(), "Timeout");
    }
}
