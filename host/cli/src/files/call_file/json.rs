//! JSON text → the one call whose inputs it is.

use super::{Call, Position, Positions, Problem};
use serde_json::value::RawValue;
use std::collections::HashMap;

pub(super) fn call(text: &str) -> Result<Call, Problem> {
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| syntax_error(text, &error))?;
    let mut positions = Positions::new();
    find_positions(text, whole, &mut vec![], &mut positions);
    if !whole.get().starts_with('{') {
        let position = positions.remove(&vec![]).unwrap_or_default();
        return Err((position, "expected an object with the inputs of a call: {\"image\": \"…\"}".into()));
    }
    Ok(Call { app_handler: None, name: String::new(), inputs: text.into(), positions })
}

fn syntax_error(text: &str, error: &serde_json::Error) -> Problem {
    // The column counts bytes.
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let before = line.get(..error.column().saturating_sub(1)).unwrap_or(line);
    let position = Position { line: error.line().max(1), column: before.chars().count() + 1 };
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    (position, format!("not valid JSON: {message}"))
}

/// Finds the positions of a value and of what it contains, down to the depth of inputs.
fn find_positions(text: &str, value: &RawValue, path: &mut Vec<String>, positions: &mut Positions) {
    const DEPTH: usize = 2;
    let offset = (value.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    positions.insert(path.clone(), Position::at(text, offset));
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
        find_positions(text, value, path, positions);
        path.pop();
    }
}
