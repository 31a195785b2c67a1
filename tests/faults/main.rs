//! Calls on a cluster in this process whose API server and result server fail as a test says.

mod identities;
mod requests;
mod results;
mod support;
mod watches;

use support::{forward, harness, kubelet, server, store};
