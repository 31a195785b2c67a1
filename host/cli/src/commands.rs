//! The commands, one file each.

pub(crate) mod batch;
pub(crate) mod check;
pub(crate) mod inspect;
pub(crate) mod package;
pub(crate) mod run;
pub(crate) mod start;
