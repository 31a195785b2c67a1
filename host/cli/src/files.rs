//! The files that the command reads.

pub(crate) mod call_file;
pub(crate) mod config;
pub(crate) mod key_file;
pub(crate) mod policy;
mod yaml;
