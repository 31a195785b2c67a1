//! System calls that rustix does not have, and standard descriptors.

use anyhow::{Context, Result};
use rustix::mount::MountAttrFlags;
use rustix::process::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Closes what the parent left open by mistake. To be called before anything is opened.
#[allow(unsafe_code, reason = "rustix has no close_range")]
pub(super) fn close_inherited() {
    // SAFETY: this process has opened nothing yet, so nobody in it owns one of these descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Points standard descriptors at /dev/null.
pub(super) fn to_null(fds: &[i32]) -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null").context("/dev/null")?;
    for fd in fds {
        match fd {
            0 => rustix::stdio::dup2_stdin(&null),
            1 => rustix::stdio::dup2_stdout(&null),
            _ => rustix::stdio::dup2_stderr(&null),
        }
        .context("/dev/null")?;
    }
    Ok(())
}

/// Blocks these signals and no others.
#[allow(unsafe_code, reason = "rustix has no signal masks")]
pub(super) fn block_signals(signals: &[i32]) {
    // SAFETY: a set of signals is plain bits, which sigemptyset makes valid; all pointers are to this one.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Forks with flags: returns the child's id, and `None` in the child.
#[allow(unsafe_code, reason = "rustix has no clone")]
pub(super) fn clone(flags: i32) -> io::Result<Option<Pid>> {
    // SAFETY: as after fork, the child goes on with a copy of the memory. This process has one thread, so no other
    // thread can hold a lock that the child would wait for.
    match unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid as i32)),
    }
}

/// Adds attributes to a mount, and to those below it if `flags` say so. Unlike a remount, this keeps the attributes
/// that a user namespace may not take away.
#[allow(unsafe_code, reason = "rustix has no mount_setattr")]
pub(super) fn add_mount_attributes(mount: &OwnedFd, attributes: MountAttrFlags, flags: i32) -> Result<()> {
    let (mount, flags) = (mount.as_raw_fd(), flags | libc::AT_EMPTY_PATH);
    let change = libc::mount_attr { attr_set: attributes.bits().into(), attr_clr: 0, propagation: 0, userns_fd: 0 };
    let size = size_of_val(&change);
    // SAFETY: the kernel reads an open descriptor, an empty C string and a struct of the size given.
    match unsafe { libc::syscall(libc::SYS_mount_setattr, mount, c"".as_ptr(), flags, &raw const change, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).context("mount_setattr, which Linux has since 5.12"),
    }
}
