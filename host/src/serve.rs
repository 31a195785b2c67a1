//! Serving calls: [`worker`] answers those of a hops installation's queue, [`http`] those of a socket. [`metrics`] counts
//! both.

pub mod http;
pub mod metrics;
pub mod worker;
