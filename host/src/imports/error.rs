//! What a host function can end with.

use crate::pods::error::Error;
use wasmtime::component::ResourceTableError;

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
