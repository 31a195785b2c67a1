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
    /// How many processes and threads the pod may have.
    pub processes: u32,
    /// How many bytes of disk the output may take up.
    pub output_limit: u64,
    pub network: Network,
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

/// Which network a pod has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Network {
    /// One of its own, with nothing but a loopback interface. The command reaches no service of the machine, not even one
    /// that listens on 127.0.0.1 only, and no other machine.
    #[default]
    Own,
    /// The machine's. The command reaches what the machine reaches, and all services of the machine. It does not reach
    /// abstract Unix sockets, such as those of a desktop session, if the kernel is Linux 6.12 or later with Landlock.
    Machine,
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
        end: End,
    },
    /// There is no sandbox, and why.
    Failed(String),
}

/// Why a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    /// The command ended by itself.
    Itself,
    /// The parent asked for it, or is gone.
    Asked,
    OverMemory,
    /// The output took up more disk than this limit in bytes.
    OverDisk(u64),
    /// It ran longer than `lifetime_ms`.
    Overtime,
}

impl Report {
    /// Prints the report for the parent, if it still lives.
    pub fn print(&self) {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    }
}
