//! The values of expressions, and the place in an expression that is to blame if there is none.

use super::{Variables, functions};
use hcl::eval::{Context, ErrorKind, Evaluate};
use hcl_edit::expr::{Expression, TraversalOperator};
use hcl_edit::visit::{self, Visit};
use hcl_edit::{Decorated, Ident, Span};
use std::cell::Cell;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::str::FromStr;
use std::sync::Once;

/// hcl-rs goes one call deeper for each `[*]`. It limits everything else that nests.
const MOST_SPLATS: usize = 64;

/// What is wrong in an expression, and the part of the text that it concerns.
pub(super) type Fault = (Option<Range<usize>>, String);

/// Evaluates the expressions of a text.
pub(super) struct Evaluator<'a> {
    text: &'a str,
    context: Context<'a>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(text: &'a str, variables: &Variables, folder: &Path) -> Self {
        let mut context = Context::new();
        for (name, value) in variables {
            context.declare_var(name.as_str(), value.clone());
        }
        functions::declare(&mut context, folder);
        Evaluator { text, context }
    }

    pub(super) fn evaluate(&self, expression: &Expression) -> Result<hcl::Value, Fault> {
        let span = expression.span();
        let text = span.clone().and_then(|span| self.text.get(span)).unwrap_or_default();
        let parsed = hcl::Expression::from_str(text).map_err(|error| (span.clone(), error.to_string()))?;
        let splats = Splats::count(expression);
        if splats > MOST_SPLATS {
            let what = format!("[*] stands {splats} times in one expression; use it at most {MOST_SPLATS} times");
            return Err((span, what));
        }
        match unless_it_panics(|| parsed.evaluate(&self.context)) {
            Some(Ok(value)) if is_finite(&value) => Ok(value),
            Some(Err(error)) => {
                let (culprit, what) = explain(error.kind());
                let found = culprit.and_then(|name| Search::find(name, expression));
                Err((found.or(span), what))
            }
            Some(Ok(_)) | None => Err((span, "a number is out of range; is something divided by 0?".into())),
        }
    }
}

/// The name in the expression that the error is about, and a sentence. It never shows a value, which may be long or
/// secret.
fn explain(error: &ErrorKind) -> (Option<&str>, String) {
    match error {
        ErrorKind::UndefinedVar(name) if name.as_str() == "event" => {
            (Some(name.as_str()), format!("{error}; give it with --event FILE.json"))
        }
        ErrorKind::UndefinedVar(name) => (Some(name.as_str()), format!("{error}; give it with --set {name}=…")),
        ErrorKind::UndefinedFunc(name) => {
            (Some(name.name.as_str()), format!("{error}; known are {}", functions::NAMES.join(", ")))
        }
        ErrorKind::FuncCall(name, what) => (Some(name.name.as_str()), format!("{}: {what}", name.name)),
        ErrorKind::NoSuchKey(name) => (Some(name.as_str()), format!("no such key {name:?}")),
        ErrorKind::Unexpected(value, expected) => (None, format!("expected {expected}, found {}", kind_of(value))),
        ErrorKind::UnaryOp(operator, value) => (None, format!("`{operator}` cannot be applied to {}", kind_of(value))),
        ErrorKind::BinaryOp(left, operator, right) => {
            (None, format!("`{operator}` cannot be applied to {} and {}", kind_of(left), kind_of(right)))
        }
        _ => (None, error.to_string()),
    }
}

/// The result of `run`. `None` if it panics, as hcl-rs does where an operator has no value: `1 % 0`. Such a panic is not
/// printed.
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

pub(super) fn kind_of(value: &hcl::Value) -> &'static str {
    match value {
        hcl::Value::Null => "null",
        hcl::Value::Bool(_) => "a boolean",
        hcl::Value::Number(_) => "a number",
        hcl::Value::String(_) => "a string",
        hcl::Value::Array(_) => "an array",
        hcl::Value::Object(_) => "an object",
    }
}

/// Counts `[*]`.
struct Splats(usize);

impl Splats {
    fn count(expression: &Expression) -> usize {
        let mut splats = Splats(0);
        splats.visit_expr(expression);
        splats.0
    }
}

impl Visit for Splats {
    fn visit_traversal_operator(&mut self, operator: &TraversalOperator) {
        self.0 += usize::from(matches!(operator, TraversalOperator::FullSplat(_)));
        visit::visit_traversal_operator(self, operator);
    }
}

/// Finds the first occurrence of a name in an expression.
struct Search<'a> {
    name: &'a str,
    found: Option<Range<usize>>,
}

impl Search<'_> {
    fn find(name: &str, expression: &Expression) -> Option<Range<usize>> {
        let mut search = Search { name, found: None };
        search.visit_expr(expression);
        search.found
    }
}

impl Visit for Search<'_> {
    fn visit_ident(&mut self, ident: &Decorated<Ident>) {
        if self.found.is_none() && ident.as_str() == self.name {
            self.found = ident.span();
        }
    }
}
