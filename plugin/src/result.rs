//! Result file → result document.

use crate::shared::document::{Document, Hops, timestamp};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

/// What a call returns.
#[derive(Debug, Default, PartialEq)]
pub struct CallResult {
    /// Why the call failed: a stable word, a colon and a sentence.
    pub error: Option<String>,
    /// The result file's text.
    pub text: String,
    /// Whether `text` is returned as JSON instead of as a string.
    pub is_json: bool,
}

impl CallResult {
    /// A call that failed and has no result.
    pub fn failed(error: String) -> Self {
        CallResult { error: Some(error), ..CallResult::default() }
    }

    /// The result of a call whose container wrote this file to `path`.
    pub fn of_file(path: &str, bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => {
                let is_json = is_json(path, &text);
                CallResult { error: None, text, is_json }
            }
            Err(error) => CallResult::failed(format!(
                "InvalidResult: the result file is not UTF-8: {} bytes, the first bad one at offset {}",
                error.as_bytes().len(),
                error.utf8_error().valid_up_to()
            )),
        }
    }

    /// The document of a call that began and ended at these times, which count from 1970 in UTC.
    pub fn document(&self, started: Duration, finished: Duration) -> String {
        let json = if self.is_json { serde_json::from_str::<&RawValue>(&self.text).ok() } else { None };
        let body = if self.is_json { "" } else { &*self.text };
        let time = |since_1970| timestamp(UNIX_EPOCH + since_1970).into();
        let error = self.error.as_deref().map(Cow::from);
        let hops = Hops { started_at: time(started), finished_at: time(finished), error };
        let document = Document::new(hops, body, json);
        // Allocated once: a buffer that grew would copy a large result several times and take up twice its memory.
        let error = self.error.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(self.text.len() + escapes(body) + error.len() + escapes(error) + 512);
        match serde_json::to_writer(&mut out, &document) {
            Ok(()) => String::from_utf8(out).unwrap_or_default(),
            Err(_) => String::new(),
        }
    }
}

/// Whether a file is returned as JSON. An object or array is, whatever the file is called. A string, number or boolean
/// is only if the file's name ends in `.json`, because plain text may look like one.
fn is_json(path: &str, text: &str) -> bool {
    let Ok(raw) = serde_json::from_str::<&RawValue>(text) else { return false };
    match raw.get().bytes().next() {
        Some(b'{' | b'[') => true,
        Some(b'n') | None => false,
        Some(_) => path.ends_with(".json"),
    }
}

/// By how many bytes a text grows when JSON escapes it.
fn escapes(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r' => 1,
            0x00..=0x1f => 5,
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests;
