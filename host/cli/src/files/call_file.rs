//! What a file says to call: HCL or JSON text → calls, each with the places of its inputs.

mod functions;

use hcl::eval::{Context, ErrorKind, Evaluate};
use hcl_edit::expr::{Expression, Object, ObjectKey, TraversalOperator};
use hcl_edit::structure::{Block, Body, Structure};
use hcl_edit::visit::{self, Visit};
use hcl_edit::{Decorated, Ident, Span};
use serde_json::value::RawValue;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Once;

/// A call as it stands in a file.
#[derive(Debug)]
pub(crate) struct Call {
    /// App and handler, `k8s` and `run` in `call k8s_run`. None in a file that holds inputs alone.
    pub app_handler: Option<(String, String)>,
    /// Its own name, else that of app and handler with its number in the file: `k8s_run0`.
    pub name: String,
    /// The JSON text of the inputs object.
    pub inputs: String,
    /// Where each input stands, by the path of keys and indexes to it; the call itself under the empty path.
    places: BTreeMap<Vec<String>, Place>,
}

impl Call {
    /// Where the input at this path stands, or the nearest that it would be in.
    pub(crate) fn place(&self, path: &[String]) -> Place {
        let enclosing = (0..=path.len()).rev().filter_map(|length| path.get(..length));
        enclosing.filter_map(|path| self.places.get(path)).next().copied().unwrap_or_default()
    }
}

/// A place in a text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
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
        let before = text.get(..text.floor_char_boundary(offset)).unwrap_or(text);
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
pub(crate) struct FileError {
    file: PathBuf,
    place: Place,
    message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.place, self.message)
    }
}

/// What expressions can refer to by name.
pub(crate) type Variables = BTreeMap<String, hcl::Value>;

/// Reads the calls in a file's text. The name's ending says what it is: `.hops` for HCL, `.json` for inputs alone.
pub(crate) fn parse(file: &Path, text: &str, variables: &Variables) -> Result<Vec<Call>, Vec<FileError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let error = |(place, message)| FileError { file: file.into(), place, message };
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("hops" | "hcl") => {
            let folder = file.parent().unwrap_or(Path::new(""));
            let calls = Hcl::new(text, variables, folder).calls();
            calls.map_err(|errors| errors.into_iter().map(error).collect())
        }
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
    fn new(text: &'a str, variables: &Variables, folder: &Path) -> Self {
        let mut context = Context::new();
        for (name, value) in variables {
            context.declare_var(name.as_str(), value.clone());
        }
        functions::declare(&mut context, folder);
        Hcl { text, context, problems: vec![] }
    }

    fn calls(mut self) -> Result<Vec<Call>, Vec<Problem>> {
        let body: Body = self.text.parse().map_err(|error: hcl_edit::parser::Error| {
            let at = error.location();
            let place = if self.text.is_char_boundary(at.offset() + 1) {
                Place { line: at.line(), column: at.column() }
            } else {
                // Its column counts bytes where it points to a character of several.
                Place::at(self.text, at.offset())
            };
            vec![(place, format!("not valid HCL: {}", error.message()))]
        })?;
        let mut calls: Vec<Call> = vec![];
        let mut number = 0;
        for structure in &body {
            match structure {
                Structure::Block(block) if block.ident.as_str() == "call" => {
                    let call = self.call(block, number);
                    number += 1;
                    if let Some(call) = &call
                        && calls.iter().any(|earlier| earlier.name == call.name)
                    {
                        let what =
                            format!("there is another call {:?}; give each a name of its own: name = \"…\"", call.name);
                        self.problem(block.ident.span(), what);
                    }
                    calls.extend(call);
                }
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

    fn call(&mut self, block: &Block, number: usize) -> Option<Call> {
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
            name: format!("{app}_{handler}{number}"),
            inputs: "{}".into(),
            places: BTreeMap::from([(vec![], self.place(block.ident.span()))]),
        };
        for structure in &block.body {
            match structure {
                Structure::Attribute(attribute) if attribute.key.as_str() == "inputs" => match &attribute.value {
                    Expression::Object(object) => call.inputs = self.object(object, &mut vec![], &mut call.places),
                    other => self.problem(other.span(), "inputs must be an object: inputs = { image = \"…\" }"),
                },
                Structure::Attribute(attribute) if attribute.key.as_str() == "name" => {
                    match self.evaluate(&attribute.value) {
                        Some(hcl::Value::String(name)) if !name.is_empty() => call.name = name,
                        Some(_) => self
                            .problem(attribute.value.span(), "the name of a call must be a string that is not empty"),
                        None => {}
                    }
                }
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
        let parsed = match hcl::Expression::from_str(text) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.problem(span, error.to_string());
                return None;
            }
        };
        let mut splats = Splats(0);
        splats.visit_expr(expression);
        if splats.0 > MOST_SPLATS {
            let what = format!("{} times [*] in one expression; at most {MOST_SPLATS} can be evaluated", splats.0);
            self.problem(span, what);
            return None;
        }
        let kind = match unless_it_panics(|| parsed.evaluate(&self.context)) {
            Some(Ok(value)) if is_finite(&value) => return Some(value),
            Some(Err(error)) => error.into_kind(),
            Some(Ok(_)) | None => {
                self.problem(span, "a number is out of range; is something divided by 0?");
                return None;
            }
        };
        let (culprit, what) = match &kind {
            ErrorKind::UndefinedVar(name) if name.as_str() == "event" => {
                (Some(name.as_str()), format!("{kind}; give it with --event FILE.json"))
            }
            ErrorKind::UndefinedVar(name) => (Some(name.as_str()), format!("{kind}; give it with --set {name}=…")),
            ErrorKind::UndefinedFunc(name) => {
                (Some(name.name.as_str()), format!("{kind}; known are {}", functions::NAMES.join(", ")))
            }
            ErrorKind::FuncCall(name, what) => (Some(name.name.as_str()), format!("{}: {what}", name.name)),
            ErrorKind::NoSuchKey(name) => (Some(name.as_str()), format!("no such key {name:?}")),
            // Values are not told: they may be long, and secret.
            ErrorKind::Unexpected(value, expected) => (None, format!("expected {expected}, found {}", kind_of(value))),
            ErrorKind::UnaryOp(operator, value) => {
                (None, format!("`{operator}` cannot be applied to {}", kind_of(value)))
            }
            ErrorKind::BinaryOp(left, operator, right) => {
                (None, format!("`{operator}` cannot be applied to {} and {}", kind_of(left), kind_of(right)))
            }
            _ => (None, kind.to_string()),
        };
        let mut search = Search { name: culprit.unwrap_or_default(), found: None };
        search.visit_expr(expression);
        self.problem(search.found.or(span), what);
        None
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        Place::at(self.text, span.unwrap_or_default().start)
    }

    fn problem(&mut self, span: Option<Range<usize>>, what: impl Into<String>) {
        self.problems.push((self.place(span), what.into().replace('\n', " ")));
    }
}

/// hcl-rs panics where an operator has no value, as in `1 % 0`. This says nothing about it.
fn unless_it_panics<T>(run: impl FnOnce() -> T) -> Option<T> {
    thread_local! { static IS_QUIET: Cell<bool> = const { Cell::new(false) } }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                others(info);
            }
        }));
    });
    IS_QUIET.set(true);
    let value = panic::catch_unwind(AssertUnwindSafe(run)).ok();
    IS_QUIET.set(false);
    value
}

/// JSON has no infinite numbers: they would become null.
fn is_finite(value: &hcl::Value) -> bool {
    match value {
        hcl::Value::Number(number) => number.as_f64().is_none_or(f64::is_finite),
        hcl::Value::Array(items) => items.iter().all(is_finite),
        hcl::Value::Object(items) => items.values().all(is_finite),
        hcl::Value::Null | hcl::Value::Bool(_) | hcl::Value::String(_) => true,
    }
}

fn kind_of(value: &hcl::Value) -> &'static str {
    match value {
        hcl::Value::Null => "null",
        hcl::Value::Bool(_) => "a boolean",
        hcl::Value::Number(_) => "a number",
        hcl::Value::String(_) => "a string",
        hcl::Value::Array(_) => "an array",
        hcl::Value::Object(_) => "an object",
    }
}

/// Counts the `[*]` of an expression. hcl-rs goes one call deeper for each, and has limits for all else that nests.
struct Splats(usize);

const MOST_SPLATS: usize = 64;

impl Visit for Splats {
    fn visit_traversal_operator(&mut self, operator: &TraversalOperator) {
        self.0 += usize::from(matches!(operator, TraversalOperator::FullSplat(_)));
        visit::visit_traversal_operator(self, operator);
    }
}

/// Looks for the first place in an expression that has this name.
struct Search<'a> {
    name: &'a str,
    found: Option<Range<usize>>,
}

impl Visit for Search<'_> {
    fn visit_ident(&mut self, ident: &Decorated<Ident>) {
        if self.found.is_none() && ident.as_str() == self.name {
            self.found = ident.span();
        }
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
    Ok(Call { app_handler: None, name: String::new(), inputs: text.into(), places })
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
