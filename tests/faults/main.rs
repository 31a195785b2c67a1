//! Calls on a cluster whose API server does what API servers do on bad days.

mod forward;
mod harness;
mod hostile;
mod identities;
mod kubelet;
mod requests;
mod results;
mod server;
mod store;
mod watches;
