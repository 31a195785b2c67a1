//! What keeps a backend, or a host function, from its result.

use wasmtime::component::ResourceTableError;

/// Why a backend could not do what was asked. Each sentence names the thing and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host's policy does not allow it.
    #[error("{0}")]
    PolicyDenied(String),
    /// The cluster's access control or admission does not allow it.
    #[error("{0}")]
    Forbidden(Refusal),
    /// A quota of the namespace is used up.
    #[error("{0}")]
    QuotaExceeded(String),
    /// The backend does not accept the request as it stands.
    #[error("{0}")]
    Invalid(String),
    /// The pod does not exist any more.
    #[error("{0}")]
    Gone(String),
    /// A file, or all input files together, are too large.
    #[error("{0}")]
    TooLarge(Excess),
    /// The backend, or the pod's file server, could not be reached, and retries did not help.
    #[error("{0}")]
    Unavailable(String),
    /// Everything else.
    #[error("{0}")]
    Other(String),
}

/// The cluster says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The cluster's own sentence: who, what, where.
    pub message: String,
    /// The rule that is missing. `None` where no rule would help, as with Pod Security.
    pub missing: Option<Rule>,
}

/// What a Role must allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `create`, `get`, `list`, `watch`, `delete`.
    pub verb: String,
    /// `pods`, `pods/log`, `pods/portforward`, `configmaps`.
    pub resource: String,
    /// The namespace, empty for the whole cluster.
    pub namespace: String,
}

/// A size over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{size} bytes are more than the limit of {limit} bytes")]
pub struct Excess {
    /// The size found, in bytes.
    pub size: u64,
    /// The largest size that is accepted, in bytes.
    pub limit: u64,
}

/// What keeps a host function from its result: an error that the guest is told, or a trap that ends the guest.
#[derive(Debug)]
pub enum TrappableError {
    /// The guest is told.
    Told(Error),
    /// The guest ends.
    Trap(wasmtime::Error),
}

impl From<Error> for TrappableError {
    fn from(error: Error) -> Self {
        TrappableError::Told(error)
    }
}

impl From<wasmtime::Error> for TrappableError {
    fn from(error: wasmtime::Error) -> Self {
        TrappableError::Trap(error)
    }
}

impl From<ResourceTableError> for TrappableError {
    fn from(error: ResourceTableError) -> Self {
        TrappableError::Trap(error.into())
    }
}
