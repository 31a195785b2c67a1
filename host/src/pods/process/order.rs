//! What a helper is asked to do, and what it answers.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// The byte that follows an order and asks for the end of its pod.
pub(super) const TERMINATE: u8 = 0;

/// A pod. On the lifeline: the length of the JSON as four bytes, the JSON, the contents of the input files.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Order {
    /// The folder that the helper creates. Its name is the pod's.
    pub folder: PathBuf,
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    pub input_dir: PathBuf,
    /// Names below `input_dir`, sizes.
    pub input_files: Vec<(String, u64)>,
    pub output_dir: PathBuf,
    /// Billionths of a CPU. Zero is no limit.
    pub nano_cpus: u64,
    /// Bytes. Zero is no limit.
    pub memory: u64,
    pub lifetime_ms: u64,
    /// Whether the files stay after the pod's end.
    pub keep: bool,
}

impl Order {
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
        Ok([&length.to_le_bytes(), &*json].concat())
    }

    pub fn receive(lifeline: &mut impl Read) -> Result<Self> {
        let mut length = [0; 4];
        lifeline.read_exact(&mut length).context("order")?;
        let mut json = vec![0; u32::from_le_bytes(length) as usize];
        lifeline.read_exact(&mut json).context("order")?;
        serde_json::from_slice(&json).context("order")
    }
}

/// What happens to a pod. On the helper's standard output, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The command runs.
    Started,
    /// The command cannot be run, and why.
    NotStarted(String),
    /// The command has ended.
    Ended {
        /// 128 + N after signal N.
        exit_code: i32,
        oom_killed: bool,
        /// The command was killed because it ran longer than `lifetime_ms`.
        overtime: bool,
    },
    /// There is no sandbox, and why.
    Failed(String),
}

impl Report {
    /// Prints the report for the parent, if it still lives.
    pub fn print(&self) {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    }
}
