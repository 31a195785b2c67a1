//! Result documents, as the command prints them.

use crate::exit::Status;
use clap::ValueEnum;
use hops_k8s::document::CallResult;
use serde::Serializer;
use serde_json::value::RawValue;
use std::io::{self, Write};

/// How a result is printed.
#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Json,
    Body,
}

/// The exit status of a process that ends after this result.
pub(crate) fn status(result: &CallResult) -> Status {
    match result.outcome() {
        "Completed" => Status::Completed,
        "ClusterUnavailable" => Status::Unavailable,
        _ => Status::Errored,
    }
}

/// Prints one result as it is, several as an object by the names of their calls. With `-o body`, an error goes to standard
/// error.
pub(crate) fn print(results: &[(&str, CallResult)], output: Output) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match (results, output) {
        ([(_, result)], Output::Body) => {
            let document = result.document();
            stdout.write_all(document.json.map_or(&*document.body, RawValue::get).as_bytes())?;
            if let Some(error) = &document.hops.error {
                eprintln!("hops: {error}");
            }
            return stdout.flush();
        }
        ([(_, result)], Output::Json) => serde_json::to_writer_pretty(&mut stdout, &result.document())?,
        _ => {
            let mut serializer = serde_json::Serializer::pretty(&mut stdout);
            serializer.collect_map(results.iter().map(|(name, result)| (name, result.document())))?;
        }
    }
    stdout.write_all(b"\n")?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_the_file_is_printed_unchanged() {
        let text = r#"{"hops":{"started_at":"a","finished_at":"b","error":null},"errored":false,"completed":true,"done":true,"body":"","json":{"b": 1.10,"a":12345678901234567890}}"#;
        let result = CallResult::parse(text).unwrap();
        let printed = serde_json::to_string_pretty(&result.document()).unwrap();
        assert!(printed.contains(r#""json": {"b": 1.10,"a":12345678901234567890}"#), "{printed}");
        assert_eq!(status(&result), Status::Completed);
    }
}
