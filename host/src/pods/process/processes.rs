//! The processes of a pod, as /proc shows them.

use rustix::process::Pid;
use std::fs;
use std::path::PathBuf;

/// The /proc folders of a process and all below it.
pub(super) fn folders(first: Pid) -> Vec<PathBuf> {
    let folder = |pid: &str| PathBuf::from(format!("/proc/{pid}"));
    let mut found = vec![folder(&first.as_raw_nonzero().to_string())];
    let mut next = 0;
    // No recursion: each process may be the child of the one before.
    while let Some(process) = found.get(next) {
        let tasks = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<PathBuf> =
            children.flat_map(|pids| pids.split_whitespace().map(folder).collect::<Vec<_>>()).collect();
        found.extend(children);
        next += 1;
    }
    found
}

/// Memory of a process and all below it, in bytes, without what is mapped from files.
pub(super) fn memory(first: Pid) -> u64 {
    let kilobytes = |folder: PathBuf| {
        let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
        let lines = status.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>()
    };
    folders(first).into_iter().map(kilobytes).sum::<u64>() << 10
}
