//! A pod's folder: its files, and a list of its cgroups.
//!
//! Below `pod` are the pod's input and output directories, at the paths that they have within the pod, so that the pod's
//! links lead to the same files. The helper holds a lock on the folder as long as it lives.

use super::order::Order;
use crate::pods::{Error, Excess};
use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The names of the folders of living pods begin with this.
pub(super) const PREFIX: &str = "hops-pod-";
const KEPT_PREFIX: &str = "hops-kept-";
const POD: &str = "pod";
const CGROUPS: &str = "cgroups";

/// A living pod's folder, locked.
pub(super) struct Folder {
    path: PathBuf,
    keep: bool,
    _lock: File,
}

impl Folder {
    pub fn create(order: &Order) -> Result<Self> {
        let path = order.folder.clone();
        loop {
            DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
            // A sweep may have removed the folder before it was locked.
            if let Ok(lock) = open(&path)
                && lock.lock().is_ok()
                && path.exists()
            {
                return Ok(Folder { path, keep: order.keep, _lock: lock });
            }
        }
    }

    /// The folder's name, which is the pod's.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// The path of one of the pod's directories on the machine.
    pub fn dir(&self, dir: &Path) -> PathBuf {
        below(&self.path, dir)
    }

    /// Creates the pod's directories, and its input files from what follows the order.
    pub fn fill(&self, order: &Order, contents: &mut impl Read) -> Result<()> {
        fs::create_dir_all(self.dir(&order.output_dir)).context("output directory")?;
        for (name, size) in &order.input_files {
            let path = self.dir(&order.input_dir).join(name);
            fs::create_dir_all(path.parent().unwrap_or(&path)).with_context(|| format!("input file {name:?}"))?;
            let mut file = File::create_new(&path).with_context(|| format!("input file {name:?}"))?;
            let written = io::copy(&mut contents.take(*size), &mut file).context("input files")?;
            ensure!(written == *size, "the input files are cut off");
        }
        Ok(())
    }

    /// Notes a cgroup that is about to be created, so that whoever removes the folder removes it too.
    pub fn note_cgroup(&self, group: &Path) -> io::Result<()> {
        let mut notes = File::options().create(true).append(true).open(self.path.join(CGROUPS))?;
        io::Write::write_all(&mut notes, format!("{}\n", group.display()).as_bytes())
    }

    /// Removes the cgroups, and the files unless they are to be kept.
    pub fn remove(self) {
        if self.keep {
            remove_cgroups(&self.path);
            let _ = fs::rename(&self.path, kept(&self.path));
        } else {
            remove(&self.path);
        }
    }
}

fn below(folder: &Path, dir: &Path) -> PathBuf {
    folder.join(POD).join(dir.strip_prefix("/").unwrap_or(dir))
}

/// The path of a folder once its pod has ended, if the files are kept.
pub(super) fn kept(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(name.replacen(PREFIX, KEPT_PREFIX, 1))
}

/// The bytes of a file, whose path is the one within the pod. Links are followed as within the pod, and never out of its
/// directories.
pub(super) fn read(folder: &Path, file: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = |error: io::Error| Error::Other(format!("{} cannot be read: {error}", file.display()));
    let root = match open(&folder.join(POD)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        root => root.map_err(failed)?,
    };
    // NONBLOCK: opening a FIFO would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = match rustix::fs::openat2(&root, file, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        opened => File::from(opened.map_err(|error| failed(error.into()))?),
    };
    let found = opened.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(Error::Other(format!("{} is not a regular file; write the result to one", file.display())));
    }
    let mut bytes = Vec::new();
    if found.len() <= limit {
        opened.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    }
    let size = found.len().max(bytes.len() as u64);
    if size > limit { Err(Error::TooLarge(Excess { size, limit })) } else { Ok(Some(bytes)) }
}

/// Removes the folders and cgroups of this user's pods that have no helper any more.
pub(super) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = open(&entry.path()) else { continue };
        let is_own = lock.metadata().is_ok_and(|found| found.uid() == rustix::process::geteuid().as_raw());
        if is_own && lock.try_lock().is_ok() {
            remove(&entry.path());
        }
    }
}

fn open(folder: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(folder)
}

/// Removes a folder, whatever its pod has made of it: without rights, or nested deeper than paths or descriptors reach.
fn remove(folder: &Path) {
    remove_cgroups(folder);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut directories: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    let (unique, mut moved) = (uuid::Uuid::new_v4().simple(), 0);
    while let Some(path) = directories.pop() {
        let Ok(directory) = unlock(CWD, &path).and_then(|()| open(&path)) else { continue };
        for entry in Dir::read_from(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name == c"." || name == c".." || rustix::fs::unlinkat(&directory, name, AtFlags::empty()).is_ok() {
                continue;
            }
            // A directory. It moves up before it is emptied, so that no path grows.
            moved += 1;
            let place = folder.join(format!("{unique}-{moved}"));
            let _ = unlock(&directory, name);
            if rustix::fs::renameat(&directory, name, CWD, &place).is_ok() {
                directories.push(place);
            }
        }
        let _ = fs::remove_dir(&path);
    }
    let _ = fs::remove_dir_all(folder);
}

/// Restores rights that a pod has taken away from its own directory. Follows no link.
fn unlock(parent: impl AsFd, path: impl Arg) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, path, flags, Mode::empty())?;
    fs::set_permissions(format!("/proc/self/fd/{}", directory.as_raw_fd()), Permissions::from_mode(0o700))
}

fn remove_cgroups(folder: &Path) {
    let notes = fs::read_to_string(folder.join(CGROUPS)).unwrap_or_default();
    for group in notes.lines() {
        for _ in 0..50 {
            match fs::remove_dir(group) {
                // The last process is still leaving; there is no event to wait for.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => break,
            }
        }
    }
    let _ = fs::remove_file(folder.join(CGROUPS));
}
