//! Serving calls: [`worker`] answers the requests of a hops installation's queue, [`http`] those of HTTP clients.
//! [`metrics`] counts the calls of both.

pub mod http;
pub mod metrics;
pub mod worker;
