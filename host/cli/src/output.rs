//! What the command prints: results on standard output, progress on standard error.

pub(crate) mod document;
pub(crate) mod progress;
