//! The memory of this process, as Linux counts it, in KiB.

use std::fs;

/// The memory in use now.
pub fn now() -> u64 {
    status("VmRSS")
}

/// The most memory in use since [`reset_peak`], or since the process started.
pub fn peak() -> u64 {
    status("VmHWM")
}

/// Starts the peak anew from the memory in use now.
pub fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("Linux lets a process reset its own peak");
}

fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has a status of this process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.trim_end_matches("kB").trim().parse().ok()).expect("a number of KiB")
}
