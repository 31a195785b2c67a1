//! Calls on a cluster in this process whose API server and result server fail as a test says.

mod forward;
mod harness;
mod identities;
mod kubelet;
mod requests;
mod results;
mod server;
mod store;
mod watches;
