//! Who a command is, on the machine and in its sandbox, and what it may do.

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

/// What root becomes. The machine's uid 0 owns /proc/sys and /proc/sysrq-trigger, and may write there without any
/// capability.
const UNPRIVILEGED: u32 = 65534;

/// What a container's root may do with its own files and processes. In a user namespace these rights reach no further
/// than the namespace. CAP_SYS_ADMIN is not among them: it could make the read-only mounts writable again.
const RIGHTS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL);

/// The user that runs a command.
#[derive(Clone, Copy)]
pub(super) struct User {
    /// The helper is root, so the command's user is [`UNPRIVILEGED`]. Otherwise it is the helper's own user.
    pub is_root: bool,
    /// The command is root of a user namespace.
    pub in_namespace: bool,
}

impl User {
    /// Makes the command's user the owner of a directory. Returns whether the helper is root.
    pub fn give(directory: &Path) -> Result<bool> {
        if !rustix::process::geteuid().is_root() {
            return Ok(false);
        }
        match chown(directory, Some(UNPRIVILEGED), Some(UNPRIVILEGED)) {
            // The root of a rootless container cannot become another user. On the machine it is an ordinary one.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            given => given.context("output directory").map(|()| true),
        }
    }

    /// Tells the kernel who the root of the namespace of `pid` is outside of it.
    pub fn map(self, pid: Pid) -> Result<()> {
        if !self.in_namespace {
            return Ok(());
        }
        let (setgroups, uid, gid) = if self.is_root {
            ("allow", UNPRIVILEGED, UNPRIVILEGED)
        } else {
            ("deny", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        };
        let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        fs::write(proc.join("setgroups"), setgroups).context("setgroups")?;
        fs::write(proc.join("uid_map"), format!("0 {uid} 1")).context("uid_map")?;
        fs::write(proc.join("gid_map"), format!("0 {gid} 1")).context("gid_map")
    }

    /// Becomes the root of the namespace, if there is one, and leaves all groups of the caller.
    pub fn become_root(self) -> Result<()> {
        if self.in_namespace {
            rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).context("gid")?;
            rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).context("uid")?;
        }
        if self.is_root {
            rustix::thread::set_thread_groups(&[]).context("groups")?;
        }
        Ok(())
    }

    /// Gives up for good what the command may not do. At an exec, the root of a user namespace gets every capability of
    /// the bounding set, so that set shrinks too.
    pub fn drop_privileges(self) -> Result<()> {
        let keep = if self.in_namespace { RIGHTS } else { CapabilitySet::empty() };
        for capability in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit) - keep) {
            if !capability.is_empty() && rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false) {
                rustix::thread::remove_capability_from_bounding_set(capability).context("capabilities")?;
            }
        }
        if !self.in_namespace {
            let (uid, gid) = (Uid::from_raw(UNPRIVILEGED), Gid::from_raw(UNPRIVILEGED));
            rustix::thread::set_keep_capabilities(true).context("capabilities")?;
            rustix::thread::set_thread_res_gid(gid, gid, gid).context("gid")?;
            rustix::thread::set_thread_res_uid(uid, uid, uid).context("uid")?;
        }
        let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets).context("capabilities")?;
        rustix::thread::set_no_new_privs(true).context("no_new_privs")
    }
}

/// How to have the kernel allow user namespaces.
pub(super) fn advice() -> String {
    for (setting, off, on) in [
        ("user/max_user_namespaces", "0", "15000"),
        ("user/max_net_namespaces", "0", "15000"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ] {
        let value = fs::read_to_string(Path::new("/proc/sys").join(setting));
        if value.is_ok_and(|value| value.trim() == off) {
            return format!("\"sysctl -w {}={on}\", as root, allows it", setting.replace('/', "."));
        }
    }
    "if this is a container, its seccomp and AppArmor profiles have to allow user namespaces and mounts".into()
}
