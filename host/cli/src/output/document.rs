//! The result document of a call, as the command prints it.

use crate::exit::{CommandError, Status};
use clap::ValueEnum;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use std::io::{self, Write};

/// How a result is printed.
#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Json,
    Body,
}

/// A result document. The file's JSON stays the text that it is.
#[derive(Deserialize, Serialize)]
pub(crate) struct Document<'a> {
    #[serde(borrow)]
    hops: Hops<'a>,
    errored: bool,
    completed: bool,
    done: bool,
    body: String,
    #[serde(borrow)]
    json: Option<&'a RawValue>,
}

#[derive(Deserialize, Serialize)]
struct Hops<'a> {
    started_at: &'a str,
    finished_at: &'a str,
    error: Option<String>,
}

impl<'a> Document<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, CommandError> {
        serde_json::from_str(text)
            .map_err(|error| CommandError::usage(format!("the plugin's result is no result document: {error}")))
    }

    /// The error, empty if there is none.
    pub(crate) fn error(&self) -> &str {
        self.hops.error.as_deref().unwrap_or_default()
    }

    /// What the process ends with.
    pub(crate) fn status(&self) -> Status {
        match self.error() {
            "" => Status::Completed,
            error if error.starts_with("ClusterUnavailable:") => Status::Unavailable,
            _ => Status::Errored,
        }
    }
}

/// Prints results: one as it is, several as an object by their calls' names. An error goes to standard error where the
/// output has no place for it.
pub(crate) fn print(documents: &[(&str, Document)], output: Output) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match (documents, output) {
        ([(_, document)], Output::Body) => {
            stdout.write_all(document.json.map_or(&*document.body, RawValue::get).as_bytes())?;
            if let Some(error) = &document.hops.error {
                eprintln!("hops: {error}");
            }
            return stdout.flush();
        }
        ([(_, document)], Output::Json) => serde_json::to_writer_pretty(&mut stdout, document)?,
        _ => {
            let mut serializer = serde_json::Serializer::pretty(&mut stdout);
            serializer.collect_map(documents.iter().map(|(name, document)| (name, document)))?;
        }
    }
    stdout.write_all(b"\n")?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_json_stays_as_it_was_written() {
        let text = r#"{"hops":{"started_at":"a","finished_at":"b","error":null},"errored":false,"completed":true,"done":true,"body":"","json":{"b": 1.10,"a":12345678901234567890}}"#;
        let Ok(document) = Document::parse(text) else { panic!("this is a document") };
        let printed = serde_json::to_string_pretty(&document).unwrap();
        assert!(printed.contains(r#""json": {"b": 1.10,"a":12345678901234567890}"#), "{printed}");
        assert!(document.status() == Status::Completed);
    }
}
