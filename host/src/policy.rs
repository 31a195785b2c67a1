//! What the host lets plugins do, whatever they ask for.

use crate::pods::{Error, Excess, PodSpec};

/// Limits and permissions, checked below the plugin. What it does not name is denied.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The most that a call's input files may have in all, in bytes.
    pub max_input_bytes: u64,
    /// The most that a result file may have, in bytes.
    pub max_result_bytes: u64,
    /// The most lines of a log that a plugin may read at once.
    pub max_log_lines: u32,
    /// Whether calls may choose a service account.
    pub service_account: bool,
    /// Whether calls may name secrets to pull images with.
    pub image_pull_secrets: bool,
    /// Whether calls may choose nodes.
    pub node_selector: bool,
}

impl Default for Policy {
    /// 16 MiB of input files, 8 MiB of result, 1,000 lines of log; no service account, pull secrets or node selector.
    fn default() -> Self {
        Policy {
            max_input_bytes: 16 * 1024 * 1024,
            max_result_bytes: 8 * 1024 * 1024,
            max_log_lines: 1000,
            service_account: false,
            image_pull_secrets: false,
            node_selector: false,
        }
    }
}

impl Policy {
    pub(crate) fn check(&self, spec: &PodSpec) -> Result<(), Error> {
        let asked = [
            ("service_account", spec.service_account.is_some(), self.service_account),
            ("image_pull_secrets", !spec.image_pull_secrets.is_empty(), self.image_pull_secrets),
            ("node_selector", !spec.node_selector.is_empty(), self.node_selector),
        ];
        if let Some((name, ..)) = asked.iter().find(|(_, asked, allowed)| *asked && !allowed) {
            return Err(Error::PolicyDenied(format!("this host does not allow {name}; leave it out")));
        }
        let size = spec.input_files.iter().map(|file| file.content.len() as u64).sum();
        if size > self.max_input_bytes {
            return Err(Error::TooLarge(Excess { size, limit: self.max_input_bytes }));
        }
        Ok(())
    }
}
