//! The pod's process from its first moment until it becomes the command: its root, its rights.

use super::folder::Folder;
use super::helper::{Order, Report, UNPRIVILEGED, advice, block_signals, to_null};
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags as Attr, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PROGRAMS: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix"];
/// What programs commonly need in /etc.
const ETC: &str = "alternatives ca-certificates ca-certificates.conf crypto-policies group host.conf hosts ld.so.cache \
                   ld.so.conf ld.so.conf.d localtime mime.types nsswitch.conf passwd pki protocols resolv.conf services \
                   ssl";
const DEVICES: &str = "null zero full random urandom tty";
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];
/// What a container's root may do with its own files and processes. They hold for what belongs to the user namespace
/// alone; with CAP_SYS_ADMIN, it could make the read-only mounts writable again.
const RIGHTS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL);
const DEVICE: Attr = Attr::MOUNT_ATTR_NOSUID;
const WRITABLE: Attr = DEVICE.union(Attr::MOUNT_ATTR_NODEV);
const READ_ONLY: Attr = WRITABLE.union(Attr::MOUNT_ATTR_RDONLY);
const NO_PROGRAMS: Attr = WRITABLE.union(Attr::MOUNT_ATTR_NOEXEC);

/// The directories that a sandbox fills itself.
pub(super) fn reserved() -> impl Iterator<Item = &'static str> {
    PROGRAMS.into_iter().chain(["/etc", "/dev", "/proc"])
}

/// Becomes the command of the order. Returns only if that failed.
pub(super) fn enter(
    order: &Order,
    folder: &Folder,
    helper: &UnixStream,
    in_user_namespace: bool,
    is_root: bool,
) -> Report {
    if let Err(error) = build(order, folder, helper, in_user_namespace, is_root) {
        return Report::Failed(format!("no sandbox: {error:#}"));
    }
    let Some((program, arguments)) = order.command.split_first() else {
        return Report::NotStarted("there is no command".into());
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).env("HOME", "/tmp");
    let error = command.envs(order.env.iter().map(|(name, value)| (name, value))).exec();
    if error.kind() == io::ErrorKind::NotFound && !program.contains('/') {
        return Report::NotStarted(format!("exec: {program:?}: executable file not found in $PATH"));
    }
    let why = error.to_string();
    let why = why.split(" (os error").next().unwrap_or_default();
    Report::NotStarted(format!("exec: {program:?}: {why}"))
}

fn build(order: &Order, folder: &Folder, helper: &UnixStream, in_user_namespace: bool, is_root: bool) -> Result<()> {
    let mut go = helper;
    go.read_exact(&mut [0]).context("helper")?; // ids are mapped, limits hold
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if let Err(error) = rustix::mount::mount_change("/", private) {
        bail!("the kernel gives a user namespace, but no mounts in it ({error}); {}", advice());
    }

    // Opened as the user who may see these paths, put in place after the change of root.
    let output = folder.dir(&order.output_dir);
    let base = rustix::fs::openat(CWD, &output, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context("folder")?;
    let (mut mounts, mut links) = (Vec::new(), Vec::new());
    for path in PROGRAMS.map(Path::new).into_iter().filter(|path| path.exists()) {
        match fs::read_link(path) {
            Ok(target) => links.push((target, path)),
            Err(_) => mounts.push((path.to_owned(), tree(path, READ_ONLY)?)),
        }
    }
    for (names, parent, attributes) in [(ETC, "/etc", READ_ONLY), (DEVICES, "/dev", DEVICE)] {
        for path in names.split(' ').map(|name| Path::new(parent).join(name)).filter(|path| path.exists()) {
            let tree = tree(&path, attributes)?;
            mounts.push((path, tree));
        }
    }
    if !order.input_files.is_empty() {
        mounts.push((order.input_dir.clone(), tree(&folder.dir(&order.input_dir), READ_ONLY)?));
    }
    mounts.push((order.output_dir.clone(), tree(&output, WRITABLE)?));

    if in_user_namespace {
        rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).context("gid")?;
        rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).context("uid")?;
    }
    if is_root {
        rustix::thread::set_thread_groups(&[]).context("groups")?;
    }
    let root = mount("tmpfs", &[("mode", "755")], WRITABLE)?;
    // Allowed only while another /proc is in sight, all of it: not in a container that hides parts. Then that one,
    // read-only; it shows the container's processes.
    let proc = mount("proc", &[], NO_PROGRAMS).or_else(|_| tree(Path::new("/proc"), READ_ONLY))?;
    let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&root, "", &base, "", onto).context("root")?;
    rustix::process::fchdir(&root).context("root")?;
    rustix::process::pivot_root(".", ".").context("pivot_root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context("old root")?;
    rustix::process::chdir("/").context("root")?;

    let size = (order.memory > 0).then(|| order.memory.to_string());
    let mut options = vec![("mode", "1777")];
    options.extend(size.as_deref().map(|size| ("size", size)));
    place(Path::new("/dev"), &mount("tmpfs", &[("mode", "755")], DEVICE)?)?;
    place(Path::new("/dev/shm"), &mount("tmpfs", &options, NO_PROGRAMS)?)?;
    place(Path::new("/tmp"), &mount("tmpfs", &options, WRITABLE)?)?;
    place(Path::new("/proc"), &proc)?;
    for (path, tree) in &mounts {
        place(path, tree)?;
    }
    for (target, link) in LINKS {
        symlink(target, link).context(link)?;
    }
    for (target, link) in links {
        symlink(target, link).with_context(|| link.display().to_string())?;
    }
    set_attributes(&root, READ_ONLY, 0)?;

    rustix::system::sethostname(order.folder.file_name().unwrap_or_default().as_encoded_bytes())
        .context("host name")?;
    rustix::process::setsid().context("session")?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).context("core")?;
    drop_privileges(in_user_namespace)?;
    to_null(&[0])?;
    rustix::stdio::dup2_stdout(io::stderr()).context("stdout")?;
    block_signals(&[]);
    die_with(helper)
}

/// Leaves no more to regain: at an exec, uid 0 of a user namespace gets what the bounding set allows.
fn drop_privileges(in_user_namespace: bool) -> Result<()> {
    let keep = if in_user_namespace { RIGHTS } else { CapabilitySet::empty() };
    for capability in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit) - keep) {
        if !capability.is_empty() && rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false) {
            rustix::thread::remove_capability_from_bounding_set(capability).context("capabilities")?;
        }
    }
    if !in_user_namespace {
        let (uid, gid) = (Uid::from_raw(UNPRIVILEGED), Gid::from_raw(UNPRIVILEGED));
        rustix::thread::set_keep_capabilities(true).context("capabilities")?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).context("gid")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).context("uid")?;
    }
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).context("capabilities")?;
    rustix::thread::set_no_new_privs(true).context("no_new_privs")
}

/// From now on the kernel ends this process with the helper, unless that is gone already. To be called last: a change
/// of user undoes it.
fn die_with(helper: &UnixStream) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("death signal")?;
    let mut gone = [PollFd::new(helper, PollFlags::empty())];
    match poll(&mut gone, Some(&Timespec::default())).context("helper")? {
        0 => Ok(()),
        _ => bail!("the helper is gone"),
    }
}

/// A detached copy of what is mounted at `path` and below.
fn tree(path: &Path, attributes: Attr) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, path, flags).with_context(|| path.display().to_string())?;
    set_attributes(&tree, attributes, libc::AT_RECURSIVE)?;
    Ok(tree)
}

/// Adds attributes; unlike a remount, this leaves alone those that a user namespace may not take away.
#[allow(unsafe_code, reason = "rustix has no mount_setattr")]
fn set_attributes(mount: &OwnedFd, attributes: Attr, flags: i32) -> Result<()> {
    let (mount, flags) = (mount.as_raw_fd(), flags | libc::AT_EMPTY_PATH);
    let change = libc::mount_attr { attr_set: attributes.bits().into(), attr_clr: 0, propagation: 0, userns_fd: 0 };
    let size = size_of_val(&change);
    // SAFETY: an open descriptor, an empty C string and a struct of the size given, which the kernel reads.
    match unsafe { libc::syscall(libc::SYS_mount_setattr, mount, c"".as_ptr(), flags, &raw const change, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).context("mount_setattr, which Linux has since 5.12"),
    }
}

fn mount(kind: &str, options: &[(&str, &str)], attributes: Attr) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).with_context(|| kind.to_owned())?;
    for (name, value) in options {
        rustix::mount::fsconfig_set_string(&context, *name, *value).with_context(|| format!("{kind} {name}"))?;
    }
    rustix::mount::fsconfig_create(&context).with_context(|| kind.to_owned())?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).with_context(|| kind.to_owned())
}

/// Mounts at a path of the new root; makes the mount point.
fn place(path: &Path, mount: &OwnedFd) -> Result<()> {
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
