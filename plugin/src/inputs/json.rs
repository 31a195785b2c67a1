//! JSON as the checks need it: one level at a time, objects in the order of the text with duplicates kept, numbers
//! as they are written.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// A JSON value whose parts are not looked at yet.
#[derive(Debug)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    String(String),
    Array(Vec<&'a RawValue>),
    Object(Vec<(String, &'a RawValue)>),
    /// What only looks like a value from outside: a string with half a surrogate pair.
    Invalid(serde_json::Error),
}

impl<'a> Json<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        Ok(match text.trim_start().bytes().next() {
            Some(b'{') => Json::Object(serde_json::from_str::<Entries>(text)?.0),
            Some(b'[') => Json::Array(serde_json::from_str(text)?),
            Some(b'"') => Json::String(serde_json::from_str(text)?),
            _ => match serde_json::from_str::<&RawValue>(text)?.get() {
                "null" => Json::Null,
                "true" => Json::Bool(true),
                "false" => Json::Bool(false),
                number => Json::Number(number),
            },
        })
    }

    /// The value of a part.
    pub(super) fn part(raw: &'a RawValue) -> Self {
        Json::parse(raw.get()).unwrap_or_else(Json::Invalid)
    }

    /// The value's type, as a sentence names it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
            Json::Invalid(_) => "no JSON",
        }
    }
}

/// An object's entries. A map type would lose their order and their duplicates.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let mut entries = vec![];
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}
