//! The result document of a call, as the command prints it.

use super::{Output, Status};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io::{self, Write};

/// A result document. The file's JSON stays the text that it is.
#[derive(Deserialize, Serialize)]
pub(super) struct Document<'a> {
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
    pub(super) fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// What the process ends with.
    pub(super) fn status(&self) -> Status {
        match &self.hops.error {
            Some(error) if error.starts_with("ClusterUnavailable:") => Status::Unavailable,
            _ if self.errored => Status::Errored,
            _ => Status::Completed,
        }
    }

    /// Prints the result; an error goes to standard error too where the output has no place for it.
    pub(super) fn print(&self, output: Output) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        match output {
            Output::Json => {
                serde_json::to_writer_pretty(&mut stdout, self)?;
                stdout.write_all(b"\n")?;
            }
            Output::Body => {
                stdout.write_all(self.json.map_or(&*self.body, RawValue::get).as_bytes())?;
                if let Some(error) = &self.hops.error {
                    eprintln!("hops: {error}");
                }
            }
        }
        stdout.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_json_stays_as_it_was_written() {
        let text = r#"{"hops":{"started_at":"a","finished_at":"b","error":null},"errored":false,"completed":true,"done":true,"body":"","json":{"b": 1.10,"a":12345678901234567890}}"#;
        let document = Document::parse(text).unwrap();
        let printed = serde_json::to_string_pretty(&document).unwrap();
        assert!(printed.contains(r#""json": {"b": 1.10,"a":12345678901234567890}"#), "{printed}");
        assert!(document.status() == Status::Completed);
    }
}
