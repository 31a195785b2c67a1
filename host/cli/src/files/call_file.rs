//! Call files: HCL or JSON text → calls, each with the positions of its inputs.

mod blocks;
mod expression;
mod functions;
mod json;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A call in a file.
#[derive(Debug)]
pub(crate) struct Call {
    /// App and handler: `k8s` and `run` in `call k8s_run`. `None` in a file that contains inputs alone.
    pub app_handler: Option<(String, String)>,
    /// Its own name. Without one, app, handler and the call's number in the file: `k8s_run0`.
    pub name: String,
    /// The JSON text of the inputs object.
    pub inputs: String,
    /// The position of each input, by its path of keys and indexes. The empty path is the call itself.
    positions: Positions,
}

type Positions = BTreeMap<Vec<String>, Position>;

impl Call {
    /// The position of the input at this path. Without such an input, that of the nearest one around it.
    pub(crate) fn position(&self, path: &[String]) -> Position {
        let enclosing = (0..=path.len()).rev().filter_map(|length| path.get(..length));
        enclosing.filter_map(|path| self.positions.get(path)).next().copied().unwrap_or_default()
    }
}

/// A position in a text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    line: usize,
    column: usize,
}

impl Default for Position {
    fn default() -> Self {
        Position { line: 1, column: 1 }
    }
}

impl Position {
    fn at(text: &str, offset: usize) -> Self {
        let before = text.get(..text.floor_char_boundary(offset)).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before.get(start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something wrong in a file.
#[derive(Debug)]
pub(crate) struct FileError {
    file: PathBuf,
    position: Position,
    message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.position, self.message)
    }
}

/// A position, and what is wrong there.
type Problem = (Position, String);

/// The variables of expressions, by name.
pub(crate) type Variables = BTreeMap<String, hcl::Value>;

/// Reads the calls in a file's text. The file's extension decides: `.hops` is HCL, `.json` is the inputs of one call.
pub(crate) fn parse(file: &Path, text: &str, variables: &Variables) -> Result<Vec<Call>, Vec<FileError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let error = |(position, message)| FileError { file: file.into(), position, message };
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("hops" | "hcl") => {
            let folder = file.parent().unwrap_or(Path::new(""));
            let calls = blocks::calls(text, variables, folder);
            calls.map_err(|problems| problems.into_iter().map(error).collect())
        }
        Some("json") => json::call(text).map(|call| vec![call]).map_err(|problem| vec![error(problem)]),
        _ => {
            let message =
                "the file's name does not say what it contains: use .hops for calls, .json for the inputs of one";
            Err(vec![error((Position::default(), message.into()))])
        }
    }
}

#[cfg(test)]
mod tests;
