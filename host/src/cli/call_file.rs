//! What a file says to call: HCL or JSON text → calls, each with the places of its inputs.

use hcl::eval::{Context, Evaluate};
use hcl_edit::Span;
use hcl_edit::expr::{Expression, Object, ObjectKey};
use hcl_edit::structure::{Block, Body, Structure};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A call as it stands in a file.
#[derive(Debug)]
pub(super) struct Call {
    /// App and handler, `k8s` and `run` in `call k8s_run`. None in a file that holds inputs alone.
    pub app_handler: Option<(String, String)>,
    /// The JSON text of the inputs object.
    pub inputs: String,
    /// Where each input stands, by the path of keys and indexes to it; the call itself under the empty path.
    places: BTreeMap<Vec<String>, Place>,
}

impl Call {
    /// Where the input at this path stands, or the nearest that it would be in.
    pub(super) fn place(&self, path: &[String]) -> Place {
        let enclosing = (0..=path.len()).rev().filter_map(|length| path.get(..length));
        enclosing.filter_map(|path| self.places.get(path)).next().copied().unwrap_or_default()
    }
}

/// A place in a text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

impl Default for Place {
    fn default() -> Self {
        Place { line: 1, column: 1 }
    }
}

impl Place {
    fn at(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before.get(start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something in a file that is no call.
#[derive(Debug)]
pub(super) struct FileError {
    file: PathBuf,
    place: Place,
    message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.place, self.message)
    }
}

/// Reads the calls in a file's text. The name's ending says what it is: `.hops` for HCL, `.json` for inputs alone.
pub(super) fn parse(file: &Path, text: &str) -> Result<Vec<Call>, Vec<FileError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let error = |(place, message)| FileError { file: file.into(), place, message };
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("hops" | "hcl") => Hcl::new(text).calls().map_err(|errors| errors.into_iter().map(error).collect()),
        Some("json") => json_call(text).map(|call| vec![call]).map_err(|problem| vec![error(problem)]),
        _ => {
            let message = "the file's name says not what it holds: use .hops for calls, .json for the inputs of one";
            Err(vec![error((Place::default(), message.into()))])
        }
    }
}

/// A place, and what is wrong there.
type Problem = (Place, String);

/// HCL on its way to calls. What is wrong leaves a problem behind, so that the rest is looked at too.
struct Hcl<'a> {
    text: &'a str,
    context: Context<'a>,
    problems: Vec<Problem>,
}

impl<'a> Hcl<'a> {
    fn new(text: &'a str) -> Self {
        Hcl { text, context: Context::new(), problems: vec![] }
    }

    fn calls(mut self) -> Result<Vec<Call>, Vec<Problem>> {
        let body: Body = self.text.parse().map_err(|error: hcl_edit::parser::Error| {
            let place = Place { line: error.location().line(), column: error.location().column() };
            vec![(place, format!("not valid HCL: {}", error.message()))]
        })?;
        let mut calls = vec![];
        for structure in &body {
            match structure {
                Structure::Block(block) if block.ident.as_str() == "call" => calls.extend(self.call(block)),
                Structure::Block(block) => {
                    let what =
                        format!("{} is no call; hops run runs the call blocks of a file alone", block.ident.as_str());
                    self.problem(block.ident.span(), what);
                }
                Structure::Attribute(attribute) => {
                    let what = format!(
                        "{} stands outside of a call; put it into call k8s_run {{ inputs = {{ … }} }}",
                        attribute.key.as_str()
                    );
                    self.problem(attribute.key.span(), what);
                }
            }
        }
        if calls.is_empty() && self.problems.is_empty() {
            self.problem(None, "there is no call; write call k8s_run { inputs = { image = \"…\" } }");
        }
        if self.problems.is_empty() { Ok(calls) } else { Err(self.problems) }
    }

    fn call(&mut self, block: &Block) -> Option<Call> {
        let app_handler = match &block.labels[..] {
            [label] => label.as_str().split_once('_').filter(|(app, handler)| !app.is_empty() && !handler.is_empty()),
            _ => None,
        };
        let Some((app, handler)) = app_handler else {
            self.problem(block.ident.span(), "a call has the name of an app and of what it does, as in call k8s_run");
            return None;
        };
        let mut call = Call {
            app_handler: Some((app.into(), handler.into())),
            inputs: "{}".into(),
            places: BTreeMap::from([(vec![], self.place(block.ident.span()))]),
        };
        for structure in &block.body {
            match structure {
                Structure::Attribute(attribute) if attribute.key.as_str() == "inputs" => match &attribute.value {
                    Expression::Object(object) => call.inputs = self.object(object, &mut vec![], &mut call.places),
                    other => self.problem(other.span(), "inputs must be an object: inputs = { image = \"…\" }"),
                },
                // The name under which later calls of a pipeline know the result.
                Structure::Attribute(attribute) if attribute.key.as_str() == "name" => {}
                Structure::Attribute(attribute) => {
                    let what = format!(
                        "a call has no {}; it has inputs and name. Does it belong into inputs?",
                        attribute.key.as_str()
                    );
                    self.problem(attribute.key.span(), what);
                }
                Structure::Block(inner) if inner.ident.as_str() == "inputs" => {
                    self.problem(
                        inner.ident.span(),
                        "inputs is an attribute: write inputs = { … }, with an equals sign",
                    );
                }
                Structure::Block(inner) => {
                    let what = format!("a call has no block {}; it has inputs and name", inner.ident.as_str());
                    self.problem(inner.ident.span(), what);
                }
            }
        }
        Some(call)
    }

    fn object(&mut self, object: &Object, path: &mut Vec<String>, places: &mut BTreeMap<Vec<String>, Place>) -> String {
        let mut entries = vec![];
        for (key, value) in object {
            let Some(name) = self.key(key) else { continue };
            path.push(name.clone());
            places.insert(path.clone(), self.place(key.span()));
            let value = self.value(value.expr(), path, places);
            entries.push(format!("{}:{value}", serde_json::Value::from(name)));
            path.pop();
        }
        format!("{{{}}}", entries.join(","))
    }

    fn key(&mut self, key: &ObjectKey) -> Option<String> {
        match key {
            ObjectKey::Ident(name) => Some(name.as_str().into()),
            ObjectKey::Expression(expression) => match self.evaluate(expression)? {
                hcl::Value::String(name) => Some(name),
                other => {
                    self.problem(expression.span(), format!("expected a string for a name, found {other}"));
                    None
                }
            },
        }
    }

    /// The JSON text of a value. Objects and arrays are taken apart, so that what is wrong has its own place.
    fn value(
        &mut self,
        value: &Expression,
        path: &mut Vec<String>,
        places: &mut BTreeMap<Vec<String>, Place>,
    ) -> String {
        match value {
            Expression::Object(object) => self.object(object, path, places),
            Expression::Array(array) => {
                let mut items = vec![];
                for (index, item) in array.iter().enumerate() {
                    path.push(index.to_string());
                    places.insert(path.clone(), self.place(item.span()));
                    items.push(self.value(item, path, places));
                    path.pop();
                }
                format!("[{}]", items.join(","))
            }
            _ => match self.evaluate(value).map(|value| serde_json::to_string(&value)) {
                Some(Ok(json)) => json,
                Some(Err(error)) => {
                    self.problem(value.span(), format!("no value for an input: {error}"));
                    "null".into()
                }
                None => "null".into(),
            },
        }
    }

    fn evaluate(&mut self, expression: &Expression) -> Option<hcl::Value> {
        let span = expression.span();
        let text = span.clone().and_then(|span| self.text.get(span)).unwrap_or_default();
        let value = match hcl::Expression::from_str(text) {
            Ok(expression) => expression.evaluate(&self.context).map_err(|error| error.kind().to_string()),
            Err(error) => Err(error.to_string()),
        };
        value.map_err(|what| self.problem(span, what)).ok()
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        Place::at(self.text, span.unwrap_or_default().start)
    }

    fn problem(&mut self, span: Option<Range<usize>>, what: impl Into<String>) {
        self.problems.push((self.place(span), what.into()));
    }
}

fn json_call(text: &str) -> Result<Call, Problem> {
    let invalid = |error: serde_json::Error| {
        // Its columns are bytes.
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        let before = line.get(..error.column().saturating_sub(1)).unwrap_or(line);
        let place = Place { line: error.line().max(1), column: before.chars().count() + 1 };
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        (place, format!("not valid JSON: {message}"))
    };
    let whole: &RawValue = serde_json::from_str(text).map_err(invalid)?;
    let mut places = BTreeMap::new();
    find_places(text, whole, &mut vec![], &mut places);
    if !whole.get().starts_with('{') {
        let place = places.remove(&vec![]).unwrap_or_default();
        return Err((place, "expected an object with the inputs of a call: {\"image\": \"…\"}".into()));
    }
    Ok(Call { app_handler: None, inputs: text.into(), places })
}

/// The places of a value and of what is in it, down to where inputs end.
fn find_places(text: &str, value: &RawValue, path: &mut Vec<String>, places: &mut BTreeMap<Vec<String>, Place>) {
    const DEPTH: usize = 2;
    let offset = (value.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    places.insert(path.clone(), Place::at(text, offset));
    if path.len() == DEPTH {
        return;
    }
    let mut inner: Vec<(String, &RawValue)> = vec![];
    if let Ok(entries) = serde_json::from_str::<HashMap<String, &RawValue>>(value.get()) {
        inner.extend(entries);
    } else if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        inner.extend(items.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)));
    }
    for (name, value) in inner {
        path.push(name);
        find_places(text, value, path, places);
        path.pop();
    }
}

#[cfg(test)]
mod tests;
