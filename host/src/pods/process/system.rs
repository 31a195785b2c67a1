//! System calls that rustix does not have, and standard descriptors.

use anyhow::{Context, Result};
use rustix::mount::MountAttrFlags;
use rustix::process::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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

/// Leaves the caller's session keyring for an empty one. This fails when the user's quota of keys is used up. Then only
/// [`refuse_keys`] protects the caller's keys.
#[allow(unsafe_code, reason = "rustix has no keyctl")]
pub(super) fn leave_keyring() {
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: no memory is passed.
    unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) };
}

/// Numbers of add_key, request_key and keyctl on each architecture that this machine runs programs of.
const KEY_CALLS: &[(u32, &[u32])] = if cfg!(target_arch = "x86_64") {
    const X32: u32 = 1 << 30;
    &[(0xC000_003E, &[248, 249, 250, X32 | 248, X32 | 249, X32 | 250]), (0x4000_0003, &[286, 287, 288])]
} else if cfg!(target_arch = "aarch64") {
    &[(0xC000_00B7, &[217, 218, 219]), (0x4000_0028, &[309, 310, 311])]
} else {
    &[]
};

/// Makes the kernel's keys look absent to this process and all below it, if the kernel has seccomp filters. Namespaces
/// do not hide keys: a command has the uid of its caller on the machine, so it may read the keyring of that user.
#[allow(unsafe_code, reason = "rustix has no seccomp")]
pub(super) fn refuse_keys() {
    let step = |code: u32, k: u32, if_not: usize| libc::sock_filter { code: code as u16, jt: 0, jf: if_not as u8, k };
    let load = |offset: usize| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32, 0);
    let skip_unless = |value: u32, skipped: usize| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skipped);
    let answer = |answer: u32| step(libc::BPF_RET | libc::BPF_K, answer, 0);
    let mut filter = Vec::new();
    for (architecture, calls) in KEY_CALLS {
        filter.push(load(std::mem::offset_of!(libc::seccomp_data, arch)));
        filter.push(skip_unless(*architecture, 1 + 2 * calls.len()));
        filter.push(load(std::mem::offset_of!(libc::seccomp_data, nr)));
        for call in *calls {
            filter.push(skip_unless(*call, 1));
            filter.push(answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
        }
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel reads the program, whose length and pointer are those of a vector that lives on.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
}

/// Keeps this process and all below it from abstract sockets of other processes, if the kernel can (Linux 6.12).
#[allow(unsafe_code, reason = "rustix has no Landlock")]
pub(super) fn leave_abstract_sockets() {
    #[repr(C)]
    struct Ruleset {
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    }
    const ABSTRACT_UNIX_SOCKET: u64 = 1;
    let ruleset = Ruleset { handled_access_fs: 0, handled_access_net: 0, scoped: ABSTRACT_UNIX_SOCKET };
    let size = size_of_val(&ruleset);
    // SAFETY: the kernel reads a struct of the size given. What it returns, unless that is an error, is a new
    // descriptor, which this function owns and closes.
    unsafe {
        let rules = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, size, 0);
        if rules >= 0 {
            libc::syscall(libc::SYS_landlock_restrict_self, rules, 0);
            libc::close(rules as i32);
        }
    }
}

/// Sets the loopback interface up. A new network namespace has it down.
#[allow(unsafe_code, reason = "rustix has no requests for interfaces")]
pub(super) fn set_loopback_up() -> io::Result<()> {
    // SAFETY: a request is plain bytes, for which zero is valid. The kernel reads this one. The descriptor is new, and
    // owned here alone.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        match libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
