//! Limits of a pod: cgroups (v1 or v2) where this process may make them; else its memory is watched.

use super::folder::Folder;
use super::helper::Order;
use rustix::process::Pid;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the memory is looked at that no cgroup limits.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// A file of a cgroup and what it is set to.
type Setting<'a> = (&'a str, &'a str);

/// What holds a pod within its limits.
pub(super) struct Cgroups {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    /// Bytes. Zero is no limit.
    limit: u64,
}

impl Cgroups {
    pub fn create(order: &Order, folder: &Folder) -> Self {
        let bytes = order.memory.to_string();
        let v1: [Setting; 2] = [("memory.limit_in_bytes", &bytes), ("memory.memsw.limit_in_bytes", &bytes)];
        let v2: [Setting; 3] = [("memory.max", &bytes), ("memory.swap.max", "0"), ("memory.oom.group", "1")];
        let memory = (order.memory > 0).then(|| group(folder, order, "memory", &v1, &v2)).flatten();
        // Microseconds of CPU in a period of 100,000; the kernel takes no fewer than 1,000.
        let quota = (order.nano_cpus / 10_000).max(1000).to_string();
        let max = format!("{quota} 100000");
        let v1: [Setting; 2] = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", &quota)];
        let v2: [Setting; 1] = [("cpu.max", &max)];
        let cpu = (order.nano_cpus > 0).then(|| group(folder, order, "cpu", &v1, &v2)).flatten();
        Cgroups { memory, cpu, limit: order.memory }
    }

    /// Puts a process into the groups.
    pub fn add(&mut self, pid: Pid) {
        for group in [&mut self.memory, &mut self.cpu] {
            let procs = group.as_ref().map(|group| group.join("cgroup.procs"));
            // A user may own a group and yet not the one that holds this process now.
            if procs.is_some_and(|procs| fs::write(procs, pid.as_raw_nonzero().to_string()).is_err()) {
                *group = None;
            }
        }
    }

    /// How often to ask whether the limit is exceeded. None: the kernel itself sees to it.
    pub fn watch_interval(&self) -> Option<Duration> {
        (self.memory.is_none() && self.limit > 0).then_some(WATCH_INTERVAL)
    }

    pub fn is_exceeded_by(&self, pid: Pid) -> bool {
        self.watch_interval().is_some() && memory_of(pid.as_raw_nonzero()) > self.limit
    }

    /// Whether the kernel has killed a process of the pod, be it the command itself or another.
    pub fn oom_killed(&self) -> bool {
        ["memory.events", "memory.oom_control"].iter().any(|file| {
            let text = self.memory.as_ref().and_then(|group| fs::read_to_string(group.join(file)).ok());
            let count =
                text.as_deref().into_iter().flat_map(str::lines).find_map(|line| line.strip_prefix("oom_kill "));
            count.is_some_and(|count| count != "0")
        })
    }
}

/// Makes a group for a controller. The first setting must hold, the others where the kernel has them.
fn group(folder: &Folder, order: &Order, controller: &str, v1: &[Setting], v2: &[Setting]) -> Option<PathBuf> {
    let mut root = PathBuf::from("/sys/fs/cgroup");
    let is_v2 = root.join("cgroup.controllers").exists();
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(":/")?;
        let is_it = if is_v2 { names.is_empty() } else { names.split(',').any(|name| name == controller) };
        is_it.then_some(Path::new(path))
    })?;
    if !is_v2 {
        root.push(controller);
    }
    let settings = if is_v2 { v2 } else { v1 };
    // v2: a group that holds processes can't limit groups below it; its parents can.
    path.ancestors().find_map(|parent| {
        let group = root.join(parent).join(order.folder.file_name()?);
        let exists = group.exists(); // made for the other controller
        if !exists {
            folder.note_cgroup(&group).ok()?;
            fs::create_dir(&group).ok()?;
        }
        let mut held = settings
            .iter()
            .map(|(file, value)| File::options().write(true).open(group.join(file))?.write_all(value.as_bytes()));
        if held.next().is_some_and(|first| first.is_ok()) {
            held.for_each(drop);
            return Some(group);
        }
        if !exists {
            let _ = fs::remove_dir(&group);
        }
        None
    })
}

/// Memory of a process and all below it, in bytes, without what is mapped from files.
fn memory_of(pid: impl std::fmt::Display) -> u64 {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    let lines = status.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"));
    let own: u64 = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum();
    let tasks = fs::read_dir(proc.join("task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let below = children.map(|pids| pids.split_whitespace().map(memory_of).sum::<u64>());
    (own << 10) + below.sum::<u64>()
}
