//! Mounts that exist before they have a place, and their placing.

use super::system::add_mount_attributes;
use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags as Attr, MoveMountFlags, OpenTreeFlags};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

pub(super) const DEVICE: Attr = Attr::MOUNT_ATTR_NOSUID;
pub(super) const WRITABLE: Attr = DEVICE.union(Attr::MOUNT_ATTR_NODEV);
pub(super) const READ_ONLY: Attr = WRITABLE.union(Attr::MOUNT_ATTR_RDONLY);
pub(super) const NO_PROGRAMS: Attr = WRITABLE.union(Attr::MOUNT_ATTR_NOEXEC);

/// A detached copy of what is mounted at `path` and below.
pub(super) fn copy(path: &Path, attributes: Attr) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, path, flags).with_context(|| path.display().to_string())?;
    add_mount_attributes(&tree, attributes, libc::AT_RECURSIVE)?;
    Ok(tree)
}

/// A new file system.
pub(super) fn create(kind: &str, options: &[(&str, &str)], attributes: Attr) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).with_context(|| kind.to_owned())?;
    for (name, value) in options {
        rustix::mount::fsconfig_set_string(&context, *name, *value).with_context(|| format!("{kind} {name}"))?;
    }
    rustix::mount::fsconfig_create(&context).with_context(|| kind.to_owned())?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).with_context(|| kind.to_owned())
}

/// Mounts at a path, which is created.
pub(super) fn place(path: &Path, mount: &OwnedFd) -> Result<()> {
    let place = || -> io::Result<()> {
        if File::from(mount.try_clone()?).metadata()?.is_dir() {
            fs::create_dir_all(path)?;
        } else {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            File::create(path)?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(rustix::mount::move_mount(mount, "", CWD, path, flags)?)
    };
    place().with_context(|| path.display().to_string())
}

/// Mounts on an open directory.
pub(super) fn place_on(directory: &OwnedFd, mount: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", directory, "", flags)?)
}
