//! Disk space that a pod's output takes up. Quotas need root, and a file system that has them, so the space is measured.

use super::processes;
use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a file takes up at least. An empty one has an inode and a name.
const LEAST: u64 = 4096;

pub(super) struct Disk {
    output: OwnedFd,
    device: u64,
    limit: u64,
}

impl Disk {
    /// The space of a directory, with a limit in bytes.
    pub fn open(directory: &Path, limit: u64) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let output = rustix::fs::openat(CWD, directory, flags, Mode::empty()).context("output directory")?;
        let device = rustix::fs::fstat(&output).context("output directory")?.st_dev;
        Ok(Disk { output, device, limit })
    }

    /// Whether a process and all below it take up more than the limit.
    pub fn is_exceeded_by(&self, first: Pid) -> bool {
        let files = self.files();
        files > self.limit || files.saturating_add(self.deleted_files(first)) > self.limit
    }

    /// Space of all files, or any number above the limit.
    fn files(&self) -> u64 {
        // Without links: the pod may put one where a directory was a moment ago.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let mut used: u64 = 0;
        let mut directories = vec![PathBuf::from(".")];
        while let Some(directory) = directories.pop() {
            let opened = match rustix::fs::openat2(&self.output, &directory, flags, Mode::empty(), resolve) {
                Err(Errno::NAMETOOLONG) => return u64::MAX, // nested too deep to be measured
                Err(_) => continue,                         // it is gone
                Ok(opened) => opened,
            };
            for entry in Dir::read_from(&opened).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                let (flags, wanted) = (AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
                let Ok(found) = rustix::fs::statx(&opened, name, flags, wanted) else { continue };
                used = used.saturating_add(space(&found));
                if used > self.limit {
                    return used;
                }
                if is_directory(&found) {
                    directories.push(directory.join(OsStr::from_bytes(name.to_bytes())));
                }
            }
        }
        used
    }

    /// Space of files that have no name any more but are still open.
    fn deleted_files(&self, first: Pid) -> u64 {
        let mut seen = HashSet::new();
        let folders = processes::folders(first).into_iter();
        let descriptors = folders.flat_map(|folder| fs::read_dir(folder.join("fd")).into_iter().flatten().flatten());
        let files = descriptors.filter_map(|descriptor| fs::metadata(descriptor.path()).ok());
        let deleted = files.filter(|file| file.is_file() && file.nlink() == 0 && file.dev() == self.device);
        deleted.filter(|file| seen.insert(file.ino())).map(|file| file.blocks() * 512).sum()
    }
}

/// Bytes of an entry of a directory. The entries of a file with several names share its bytes.
fn space(found: &Statx) -> u64 {
    let names = if is_directory(found) { 1 } else { found.stx_nlink.max(1) };
    (found.stx_blocks * 512 / u64::from(names)).max(LEAST)
}

fn is_directory(found: &Statx) -> bool {
    FileType::from_raw_mode(found.stx_mode.into()).is_dir()
}
