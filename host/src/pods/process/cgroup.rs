//! Limits of a pod that the kernel enforces: cgroups (v1 or v2), where this process may create them.

use super::folder::Folder;
use super::order::Order;
use rustix::process::Pid;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file of a cgroup, and its content.
type Setting<'a> = (&'a str, &'a str);

/// What keeps a pod within its limits.
pub(super) struct Cgroups {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    pids: Option<PathBuf>,
    /// Bytes. Zero is no limit.
    memory_limit: u64,
}

impl Cgroups {
    /// Creates the groups that the order needs, as far as this process may.
    pub fn create(order: &Order, folder: &Folder) -> Self {
        let bytes = order.memory.to_string();
        let v1: [Setting; 2] = [("memory.limit_in_bytes", &bytes), ("memory.memsw.limit_in_bytes", &bytes)];
        let v2: [Setting; 3] = [("memory.max", &bytes), ("memory.swap.max", "0"), ("memory.oom.group", "1")];
        let memory = if order.memory > 0 { create_group(folder, "memory", &v1, &v2) } else { None };
        // Microseconds of CPU in each period of 100,000. The kernel accepts no fewer than 1,000.
        let quota = (order.nano_cpus / 10_000).max(1000).to_string();
        let max = format!("{quota} 100000");
        let v1: [Setting; 2] = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", &quota)];
        let v2: [Setting; 1] = [("cpu.max", &max)];
        let cpu = if order.nano_cpus > 0 { create_group(folder, "cpu", &v1, &v2) } else { None };
        let most = order.processes.to_string();
        let pids = create_group(folder, "pids", &[("pids.max", &most)], &[("pids.max", &most)]);
        Cgroups { memory, cpu, pids, memory_limit: order.memory }
    }

    /// Moves a process into the groups.
    pub fn add(&mut self, pid: Pid) {
        for group in [&mut self.memory, &mut self.cpu, &mut self.pids] {
            let procs = group.as_ref().map(|group| group.join("cgroup.procs"));
            // A user may own a group and yet not own the one that the process leaves.
            if procs.is_some_and(|procs| fs::write(procs, pid.as_raw_nonzero().to_string()).is_err()) {
                *group = None;
            }
        }
    }

    /// The limit that memory has to be watched for, in bytes. `None` if the kernel enforces it, or there is none.
    pub fn memory_to_watch(&self) -> Option<u64> {
        (self.memory.is_none() && self.memory_limit > 0).then_some(self.memory_limit)
    }

    /// Whether the kernel has killed a process of the pod for its memory: the command or another.
    pub fn oom_killed(&self) -> bool {
        let Some(group) = &self.memory else { return false };
        ["memory.events", "memory.oom_control"].iter().any(|file| {
            let text = fs::read_to_string(group.join(file)).unwrap_or_default();
            text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count != "0")
        })
    }
}

/// Creates a group for a controller, and writes its settings. The first setting is essential; a kernel may lack the
/// others.
fn create_group(folder: &Folder, controller: &str, v1: &[Setting], v2: &[Setting]) -> Option<PathBuf> {
    let mut root = PathBuf::from("/sys/fs/cgroup");
    let is_v2 = root.join("cgroup.controllers").exists();
    if !is_v2 {
        root.push(controller);
    }
    let own = own_group(if is_v2 { "" } else { controller })?;
    let (essential, others) = if is_v2 { v2 } else { v1 }.split_first()?;
    // In v2, a group that contains processes cannot limit groups below it. Its parents can.
    for parent in own.ancestors() {
        let group = root.join(parent).join(folder.name());
        let is_new = !group.exists(); // in v2, another controller may have needed it
        if is_new && (folder.note_cgroup(&group).is_err() || fs::create_dir(&group).is_err()) {
            continue;
        }
        if write(&group, essential).is_ok() {
            for setting in others {
                let _ = write(&group, setting);
            }
            return Some(group);
        }
        if is_new {
            let _ = fs::remove_dir(&group);
        }
    }
    None
}

/// The group of this process for a controller, relative to the root of the hierarchy. In v2, controllers have no name.
fn own_group(controller: &str) -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
        controllers.split(',').any(|name| name == controller).then(|| PathBuf::from(path))
    })
}

/// Writes a setting; unlike `fs::write`, never creates the file.
fn write(group: &Path, (file, value): &Setting) -> io::Result<()> {
    File::options().write(true).open(group.join(file))?.write_all(value.as_bytes())
}
