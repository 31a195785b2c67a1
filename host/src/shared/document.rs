//! The result document of a call.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::SystemTime;

/// What a call returns, with the fields in this order.
#[derive(Debug, Deserialize, Serialize)]
pub struct Document<'a> {
    /// When the call ran and how it failed.
    #[serde(borrow)]
    pub hops: Hops<'a>,
    /// Whether the call failed.
    pub errored: bool,
    /// The opposite of `errored`.
    pub completed: bool,
    /// Always true: a document is written when the call is over.
    pub done: bool,
    /// The result file's text, empty if it is in `json`.
    #[serde(borrow)]
    pub body: Cow<'a, str>,
    /// The result file's JSON, as it was written.
    #[serde(borrow)]
    pub json: Option<&'a RawValue>,
}

/// When a call ran and how it failed.
#[derive(Debug, Deserialize, Serialize)]
pub struct Hops<'a> {
    /// See [`timestamp`].
    #[serde(borrow)]
    pub started_at: Cow<'a, str>,
    /// See [`timestamp`].
    #[serde(borrow)]
    pub finished_at: Cow<'a, str>,
    /// A stable word, a colon and a sentence; `None` if the call completed.
    #[serde(borrow)]
    pub error: Option<Cow<'a, str>>,
}

impl<'a> Document<'a> {
    /// The document of a call that is over. The call failed if `hops` has an error.
    pub fn new(hops: Hops<'a>, body: &'a str, json: Option<&'a RawValue>) -> Self {
        let errored = hops.error.is_some();
        Document { hops, errored, completed: !errored, done: true, body: body.into(), json }
    }
}

/// A time as documents have it: RFC 3339 in UTC, with milliseconds.
pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
