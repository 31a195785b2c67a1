//! HCL text → calls. The blocks are read to the end whatever is wrong in them, so that all problems are reported at once.

use super::expression::{Evaluator, kind_of};
use super::{Call, Position, Positions, Problem, Variables};
use hcl_edit::Span;
use hcl_edit::expr::{Expression, Object, ObjectKey};
use hcl_edit::structure::{Attribute, Block, Body, Structure};
use std::ops::Range;
use std::path::Path;

/// The calls in an HCL text. Files that expressions name are relative to `folder`.
pub(super) fn calls(text: &str, variables: &Variables, folder: &Path) -> Result<Vec<Call>, Vec<Problem>> {
    let body: Body = text.parse().map_err(|error| vec![syntax_error(text, &error)])?;
    let mut reader = Reader { text, evaluator: Evaluator::new(text, variables, folder), problems: vec![] };
    let calls = reader.body(&body);
    if reader.problems.is_empty() { Ok(calls) } else { Err(reader.problems) }
}

fn syntax_error(text: &str, error: &hcl_edit::parser::Error) -> Problem {
    let at = error.location();
    let position = if text.is_char_boundary(at.offset() + 1) {
        Position { line: at.line(), column: at.column() }
    } else {
        // The parser's column counts bytes if it points to a character of several bytes.
        Position::at(text, at.offset())
    };
    (position, format!("not valid HCL: {}", error.message()))
}

struct Reader<'a> {
    text: &'a str,
    evaluator: Evaluator<'a>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn body(&mut self, body: &Body) -> Vec<Call> {
        let mut calls: Vec<Call> = vec![];
        let mut number = 0;
        for structure in body {
            match structure {
                Structure::Block(block) if block.ident.as_str() == "call" => {
                    let Some(call) = self.call(block, number) else { continue };
                    number += 1;
                    if calls.iter().any(|earlier| earlier.name == call.name) {
                        let what =
                            format!("there is another call {:?}; give each a name of its own: name = \"…\"", call.name);
                        self.problem(block.ident.span(), what);
                    }
                    calls.push(call);
                }
                Structure::Block(block) => {
                    let what =
                        format!("{} is not a call; hops run runs only the call blocks of a file", block.ident.as_str());
                    self.problem(block.ident.span(), what);
                }
                Structure::Attribute(attribute) => {
                    let what = format!(
                        "{} is outside of a call; put it into call k8s_run {{ inputs = {{ … }} }}",
                        attribute.key.as_str()
                    );
                    self.problem(attribute.key.span(), what);
                }
            }
        }
        if calls.is_empty() && self.problems.is_empty() {
            self.problem(None, "there is no call; write call k8s_run { inputs = { image = \"…\" } }");
        }
        calls
    }

    fn call(&mut self, block: &Block, number: usize) -> Option<Call> {
        let app_handler = match &block.labels[..] {
            [label] => label.as_str().split_once('_').filter(|(app, handler)| !app.is_empty() && !handler.is_empty()),
            _ => None,
        };
        let Some((app, handler)) = app_handler else {
            self.problem(block.ident.span(), "a call names an app and one of its handlers, as in call k8s_run");
            return None;
        };
        let mut call = Call {
            app_handler: Some((app.into(), handler.into())),
            name: format!("{app}_{handler}{number}"),
            inputs: "{}".into(),
            positions: Positions::from([(vec![], self.position(block.ident.span()))]),
        };
        for structure in &block.body {
            match structure {
                Structure::Attribute(attribute) => self.attribute(attribute, &mut call),
                Structure::Block(inner) => {
                    let what = match inner.ident.as_str() {
                        "inputs" => "inputs is an attribute: write inputs = { … }, with an equals sign".into(),
                        other => format!("a call has no block {other}; it has inputs and name"),
                    };
                    self.problem(inner.ident.span(), what);
                }
            }
        }
        Some(call)
    }

    fn attribute(&mut self, attribute: &Attribute, call: &mut Call) {
        match (attribute.key.as_str(), &attribute.value) {
            ("inputs", Expression::Object(object)) => {
                call.inputs = self.object(object, &mut vec![], &mut call.positions);
            }
            ("inputs", other) => self.problem(other.span(), "inputs must be an object: inputs = { image = \"…\" }"),
            ("name", value) => match self.evaluate(value) {
                Some(hcl::Value::String(name)) if !name.is_empty() => call.name = name,
                Some(_) => self.problem(value.span(), "the name of a call must be a string that is not empty"),
                None => {}
            },
            (key, _) => {
                let what = format!("a call has no {key}; it has inputs and name. Does {key} belong in inputs?");
                self.problem(attribute.key.span(), what);
            }
        }
    }

    /// The JSON text of an object.
    fn object(&mut self, object: &Object, path: &mut Vec<String>, positions: &mut Positions) -> String {
        let mut entries = vec![];
        for (key, value) in object {
            let Some(name) = self.key(key) else { continue };
            path.push(name.clone());
            positions.insert(path.clone(), self.position(key.span()));
            let value = self.value(value.expr(), path, positions);
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
                    let what = format!("a name must be a string, and this is {}", kind_of(&other));
                    self.problem(expression.span(), what);
                    None
                }
            },
        }
    }

    /// The JSON text of a value. Objects and arrays are read item by item, so that each item has a position.
    fn value(&mut self, value: &Expression, path: &mut Vec<String>, positions: &mut Positions) -> String {
        match value {
            Expression::Object(object) => self.object(object, path, positions),
            Expression::Array(array) => {
                let mut items = vec![];
                for (index, item) in array.iter().enumerate() {
                    path.push(index.to_string());
                    positions.insert(path.clone(), self.position(item.span()));
                    items.push(self.value(item, path, positions));
                    path.pop();
                }
                format!("[{}]", items.join(","))
            }
            _ => match self.evaluate(value).map(|value| serde_json::to_string(&value)) {
                Some(Ok(json)) => json,
                Some(Err(error)) => {
                    self.problem(value.span(), format!("this value cannot be an input: {error}"));
                    "null".into()
                }
                None => "null".into(),
            },
        }
    }

    fn evaluate(&mut self, expression: &Expression) -> Option<hcl::Value> {
        match self.evaluator.evaluate(expression) {
            Ok(value) => Some(value),
            Err((span, what)) => {
                self.problem(span, what);
                None
            }
        }
    }

    fn position(&self, span: Option<Range<usize>>) -> Position {
        Position::at(self.text, span.unwrap_or_default().start)
    }

    fn problem(&mut self, span: Option<Range<usize>>, what: impl Into<String>) {
        self.problems.push((self.position(span), what.into().replace('\n', " ")));
    }
}
