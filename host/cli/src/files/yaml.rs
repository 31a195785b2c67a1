//! Files in YAML. They are read strictly, and errors have a position.

use serde::de::{DeserializeOwned, Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Error;
use std::path::Path;
use std::time::Duration;

/// The content of a file. A file without any key contains null, which means the defaults.
pub(crate) fn parse<T: Default + DeserializeOwned>(path: &Path, text: &str) -> Result<T, String> {
    let content: Option<T> = serde_saphyr::from_str(text).map_err(|error| explain(path, &error))?;
    Ok(content.unwrap_or_default())
}

fn explain(path: &Path, error: &Error) -> String {
    let error = error.without_snippet();
    let position = match error.location() {
        Some(location) => format!("{}:{}:{}", path.display(), location.line(), location.column()),
        None => path.display().to_string(),
    };
    match error {
        Error::SerdeUnknownField { field, expected, .. } => match nearest(field, expected) {
            Some(near) => format!("{position}: unknown key {field:?}, did you mean {near:?}?"),
            None => format!("{position}: unknown key {field:?}; known are {}", expected.join(", ")),
        },
        Error::SerdeUnknownVariant { variant, expected, .. } => match nearest(variant, expected) {
            Some(near) => format!("{position}: unknown value {variant:?}, did you mean {near:?}?"),
            None => format!("{position}: unknown value {variant:?}; known are {}", expected.join(", ")),
        },
        Error::SerdeInvalidType { unexpected, expected, .. } => {
            format!("{position}: expected {expected}, found {unexpected}")
        }
        Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("{position}: expected {expected}, found {unexpected}")
        }
        error => {
            let said = error.to_string();
            format!("{position}: {}", said.lines().next().unwrap_or_default())
        }
    }
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |candidate: &&str| strsim::osa_distance(&name.to_ascii_lowercase().replace('_', "-"), candidate);
    known.iter().copied().min_by_key(distance).filter(|near| distance(near) <= (near.len() / 3).max(1))
}

/// A value that is written as a text.
pub(crate) fn text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Option<T>,
    expected: &'static str,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let invalid = || D::Error::invalid_value(Unexpected::Str(&text), &expected);
    parse(&text).map(Some).ok_or_else(invalid)
}

pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    text(deserializer, |text| humantime::parse_duration(text).ok(), "a duration such as 20s")
}
