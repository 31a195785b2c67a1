//! How the process ends.

use hops_k8s::plugin::{LoadError, RegisterError};
use std::fmt;

/// The exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Completed = 0,
    Errored = 1,
    Usage = 2,
    Unavailable = 3,
    Interrupted = 130,
}

/// Why a command ends before it has a result.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) status: Status,
    /// Sentences, a line each.
    pub(crate) message: String,
}

impl CommandError {
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        CommandError { status: Status::Usage, message: message.to_string() }
    }

    pub(crate) fn errored(message: impl fmt::Display) -> Self {
        CommandError { status: Status::Errored, message: message.to_string() }
    }

    pub(crate) fn interrupted(message: impl fmt::Display) -> Self {
        CommandError { status: Status::Interrupted, message: message.to_string() }
    }

    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        CommandError { status: Status::Unavailable, message: message.to_string() }
    }
}

impl From<RegisterError> for CommandError {
    fn from(error: RegisterError) -> Self {
        CommandError::usage(error)
    }
}

impl From<LoadError> for CommandError {
    fn from(error: LoadError) -> Self {
        CommandError::usage(error)
    }
}
