//! An error and its causes in one line.

use std::error::Error;

/// The sentence of an error, then the sentences of its causes. A sentence that an earlier one contains is left out.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let sentence = cause.to_string();
        if !line.contains(&sentence) {
            line = format!("{line}: {sentence}");
        }
        next = cause.source();
    }
    line
}
