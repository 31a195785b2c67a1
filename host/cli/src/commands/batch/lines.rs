//! The files of a batch: a line of inputs for each call, and a line for each result.

use crate::exit::CommandError;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

/// A call of a batch.
pub(super) struct Line {
    /// The JSON text of its `id`. Without one, the number of its line.
    pub id: String,
    has_own_id: bool,
    /// The JSON text of its inputs, or whatever else is in the line. The plugin checks it.
    pub inputs: String,
}

/// The lines of a file. Empty lines are not calls.
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: u64,
    total: u64,
}

impl Lines {
    /// Opens a file and reads it once, so that errors in it are found before anything runs.
    pub(super) fn open(path: &Path) -> Result<Self, CommandError> {
        let unreadable = |error: io::Error| CommandError::usage(format!("cannot read {}: {error}", path.display()));
        let mut file = File::open(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            // A pipe can be read only once, and this file is read twice.
            let mut copy = tempfile::tempfile().map_err(unreadable)?;
            io::copy(&mut file, &mut copy).map_err(unreadable)?;
            copy.rewind().map_err(unreadable)?;
            file = copy;
        }
        let mut lines = Lines { path: path.into(), reader: BufReader::new(file), number: 0, total: 0 };
        let mut ids = HashSet::new();
        while let Some(line) = lines.next()? {
            lines.total += 1;
            if line.has_own_id && !ids.insert(line.id.clone()) {
                return Err(
                    lines.problem(format!("another line has the id {} too; give each an id of its own", line.id))
                );
            }
        }
        if !ids.is_empty() && ids.len() as u64 != lines.total {
            let what = "some lines have an id and some do not, so two ids could be the same";
            return Err(CommandError::usage(format!("{}: {what}; give one to all or to none", path.display())));
        }
        lines.reader.rewind().map_err(unreadable)?;
        lines.number = 0;
        Ok(lines)
    }

    /// The number of calls.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn next(&mut self) -> Result<Option<Line>, CommandError> {
        let mut text = String::new();
        loop {
            text.clear();
            self.number += 1;
            match self.reader.read_line(&mut text) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) => return Err(self.problem(format!("cannot be read: {error}"))),
            }
            let line = if self.number == 1 { text.trim_start_matches('\u{feff}') } else { &text };
            if !line.trim().is_empty() {
                return self.line(line.trim()).map(Some);
            }
        }
    }

    fn line(&self, text: &str) -> Result<Line, CommandError> {
        let numbered = || Line { id: self.number.to_string(), has_own_id: false, inputs: text.into() };
        let Ok(Entries(entries)) = serde_json::from_str(text) else { return Ok(numbered()) };
        let Some((_, id)) = entries.iter().find(|(name, _)| name == "id") else { return Ok(numbered()) };
        if !id.get().starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit()) {
            return Err(self.problem(format!("id: expected a string or a number, found {}", id.get())));
        }
        let inputs: Vec<String> = entries
            .iter()
            .filter(|(name, _)| name != "id")
            .map(|(name, value)| format!("{}:{}", serde_json::Value::from(&**name), value.get()))
            .collect();
        Ok(Line { id: id.get().into(), has_own_id: true, inputs: format!("{{{}}}", inputs.join(",")) })
    }

    fn problem(&self, what: String) -> CommandError {
        CommandError::usage(format!("{}:{}: {what}", self.path.display(), self.number))
    }
}

/// Where results go.
pub(super) enum Results {
    Stdout,
    File(File),
}

/// The ids of the calls that have a result.
pub(super) type Done = HashSet<String>;

impl Results {
    /// Opens the file for results. With `resume`, it may contain results, whose ids are returned too.
    pub(super) fn open(path: Option<&Path>, resume: bool) -> Result<(Self, Done), CommandError> {
        let Some(path) = path else { return Ok((Results::Stdout, Done::new())) };
        let unusable = |error: io::Error| CommandError::usage(format!("cannot use {}: {error}", path.display()));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(unusable)?;
        if !resume {
            if file.metadata().map_err(unusable)?.len() > 0 {
                let path = path.display();
                return Err(CommandError::usage(format!(
                    "{path} is not empty; go on with --resume, or name another file with --out"
                )));
            }
            return Ok((Results::File(file), Done::new()));
        }
        let mut done = Done::new();
        let mut whole = 0;
        let mut reader = BufReader::new(&mut file);
        let mut text = String::new();
        for number in 1.. {
            text.clear();
            let read = reader.read_line(&mut text).map_err(unusable)?;
            // A line that was cut off while it was written is not a result.
            if !text.ends_with('\n') {
                break;
            }
            whole += read as u64;
            let Ok(WithId { id }) = serde_json::from_str(&text) else {
                let path = path.display();
                return Err(CommandError::usage(format!(
                    "{path}:{number}: this is not the result of a batch; name another file with --out"
                )));
            };
            done.insert(id.get().into());
        }
        file.set_len(whole).map_err(unusable)?;
        Ok((Results::File(file), done))
    }

    /// Writes the result document of a call as one line, in one write.
    pub(super) fn write(&mut self, id: &str, document: &str) -> io::Result<()> {
        let fields = document.strip_prefix('{').unwrap_or(document);
        let mut line = format!("{{\"id\":{id},{fields}\n").into_bytes();
        // The JSON of a result file may have line breaks. They are between tokens, where spaces mean the same.
        let end = line.len().saturating_sub(1);
        line.iter_mut().take(end).filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        match self {
            Results::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&line)?;
                stdout.flush()
            }
            Results::File(file) => file.write_all(&line),
        }
    }
}

#[derive(Deserialize)]
struct WithId<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
}

/// The entries of an object in their order, with the texts of their values.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
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
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.jsonl");
        std::fs::write(&path, text).unwrap();
        let mut lines =
            Lines::open(&path).map_err(|failure| failure.message.replace(&format!("{}/", dir.path().display()), ""))?;
        let mut all = vec![];
        while let Some(Line { id, inputs, .. }) = lines.next().map_err(|failure| failure.message)? {
            all.push((id, inputs));
        }
        assert_eq!(lines.total(), all.len() as u64);
        Ok(all)
    }

    #[rstest]
    #[case::numbers("\u{feff}{\"image\": \"a\"}\r\n\n{}", &[("1", r#"{"image": "a"}"#), ("3", "{}")])]
    #[case::own_ids(
        "{\"b\": 1.10, \"id\": \"x\", \"a\": 2}\n{\"id\": 7}\n",
        &[("\"x\"", r#"{"b":1.10,"a":2}"#), ("7", "{}")]
    )]
    #[case::ids_like_numbers("{\"id\": 2}\n{\"id\": 1}\n{\"id\": 3}", &[("2", "{}"), ("1", "{}"), ("3", "{}")])]
    #[case::not_inputs("[1]\nnonsense\n{", &[("1", "[1]"), ("2", "nonsense"), ("3", "{")])]
    #[case::empty("", &[])]
    fn each_line_is_a_call_with_an_id_or_the_number_of_its_line(#[case] text: &str, #[case] expected: &[(&str, &str)]) {
        let expected: Vec<(String, String)> =
            expected.iter().map(|(id, inputs)| ((*id).into(), (*inputs).into())).collect();
        assert_eq!(read(text).unwrap(), expected);
    }

    #[rstest]
    #[case::twice(
        "{\"id\": 1}\n{\"id\": 2}\n{\"id\": 2}",
        "in.jsonl:3: another line has the id 2 too; give each an id of its own"
    )]
    #[case::mixed(
        "{\"id\": \"a\"}\n{}",
        "in.jsonl: some lines have an id and some do not, so two ids could be the same; give one to all or \
         to none"
    )]
    #[case::no_id("{\"id\": [1]}", "in.jsonl:1: id: expected a string or a number, found [1]")]
    fn an_id_that_two_calls_could_have_is_an_error(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(read(text).unwrap_err(), expected);
    }

    #[test]
    fn a_result_is_one_line_and_a_line_that_was_cut_off_is_run_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let (mut results, done) = Results::open(Some(&path), false).unwrap();
        assert!(done.is_empty());
        results.write("1", "{\"json\":{\r\n\"a\": \"b\\n\"\n}}").unwrap();
        results.write("\"x\"", "{\"json\":null}").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"id\":1,\"json\":{  \"a\": \"b\\n\" }}\n{\"id\":\"x\",\"json\":null}\n");
        assert!(Results::open(Some(&path), false).is_err_and(|failure| failure.message.contains("--resume")));

        std::fs::write(&path, format!("{text}{{\"id\":2,\"js")).unwrap();
        let (mut results, done) = Results::open(Some(&path), true).unwrap();
        assert_eq!(done, Done::from(["1".into(), "\"x\"".into()]));
        results.write("2", "{}").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{text}{{\"id\":2,}}\n"));
    }
}
