//! What was found, a line for each thing.

use crate::logging::colours;
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;
use std::io::Write;

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// Calls fail without it.
    Missing,
    /// Good to know.
    Note,
}

impl State {
    fn word(self) -> (&'static str, Style) {
        match self {
            State::Ok => ("ok", AnsiColor::Green.on_default()),
            State::Missing => ("missing", AnsiColor::Red.on_default()),
            State::Note => ("note", AnsiColor::Yellow.on_default()),
        }
    }
}

/// What was found about one thing.
#[derive(Serialize)]
pub(super) struct Line {
    pub check: String,
    pub state: State,
    detail: String,
    /// What to do, or the YAML to apply.
    fix: Option<String>,
}

/// A line in JSON.
#[derive(Serialize)]
struct JsonLine<'a> {
    #[serde(flatten)]
    line: &'a Line,
    /// The name that `fix` had in 0.1. To be removed after the next release.
    mend: Option<&'a str>,
}

impl Line {
    pub(super) fn new(check: impl Into<String>, state: State, detail: impl Into<String>) -> Self {
        Line { check: check.into(), state, detail: detail.into(), fix: None }
    }

    /// From a sentence that ends with what to do, after a semicolon.
    pub(super) fn of_sentence(check: &str, state: State, sentence: &str) -> Self {
        match sentence.rsplit_once("; ") {
            Some((detail, fix)) => Line::new(check, state, detail).fix(fix),
            None => Line::new(check, state, sentence),
        }
    }

    pub(super) fn unchecked(check: &str, why: &str) -> Self {
        Line::new(check, State::Note, format!("not checked: {why}"))
    }

    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        Line { fix: Some(fix.into()), ..self }
    }

    /// YAML to apply; it is the same for all missing rules.
    fn manifest(&self) -> Option<&str> {
        self.fix.as_deref().filter(|fix| fix.contains('\n'))
    }
}

pub(super) fn print(lines: &[Line], json: bool) {
    let text = if json {
        let lines: Vec<_> = lines.iter().map(|line| JsonLine { line, mend: line.fix.as_deref() }).collect();
        serde_json::to_string_pretty(&lines).unwrap_or_default() + "\n"
    } else {
        table(lines)
    };
    // A reader that has seen enough, such as `head`, is not an error.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn table(lines: &[Line]) -> String {
    let is_coloured = colours(&std::io::stdout());
    let width = lines.iter().map(|line| line.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    for line in lines {
        let (word, style) = line.state.word();
        let style = if is_coloured { style } else { Style::new() };
        text += &format!("{style}{word:7}{style:#}  {:width$}  {}\n", line.check, line.detail);
        if let (Some(fix), None) = (&line.fix, line.manifest()) {
            text += &format!("{:7}  {:width$}  → {fix}\n", "", "");
        }
    }
    if let Some(manifest) = lines.iter().find_map(Line::manifest) {
        text += "\nAn administrator grants what is missing with\n\n";
        text += &format!("kubectl apply -f - <<'END'\n{manifest}END\n");
    }
    text
}
