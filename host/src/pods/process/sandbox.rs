//! The pod's process from its first moment until it becomes the command.
//!
//! The phases follow one another in [`build`]; each says there why the next one has to wait for it.

use super::folder::Folder;
use super::mounts::{self, DEVICE, NO_PROGRAMS, READ_ONLY, WRITABLE};
use super::order::{Network, Order, Report};
use super::system::{
    add_mount_attributes, block_signals, leave_abstract_sockets, refuse_keys, set_loopback_up, to_null,
};
use super::user::{User, advice};
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit, Signal};
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
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

/// The directories that a sandbox fills itself.
pub(super) fn reserved() -> impl Iterator<Item = &'static str> {
    PROGRAMS.into_iter().chain(["/etc", "/dev", "/proc"])
}

/// Becomes the command of the order. Returns only if that failed.
pub(super) fn enter(order: &Order, folder: &Folder, helper: &UnixStream, user: User) -> Report {
    if let Err(error) = build(order, folder, helper, user) {
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

fn build(order: &Order, folder: &Folder, helper: &UnixStream, user: User) -> Result<()> {
    // Before the helper has mapped the ids, this process may not do what follows. Before it has set the limits, what
    // follows would count for the helper.
    wait_for(helper)?;
    // Before any other mount: none may show on the machine.
    leave_propagation()?;
    // Before the change of user: the command's user may not be allowed to see these paths.
    let parts = Parts::open(order, folder)?;
    // Before new file systems: they belong to whoever creates them.
    user.become_root()?;
    // Before the parts are placed: a path of the pod must not be resolved on the machine.
    let (root, proc) = change_root(&parts.base)?;
    let dev = furnish(order, &parts, &proc)?;
    // Once all mount points exist.
    for mount in [&root, &dev] {
        add_mount_attributes(mount, READ_ONLY, 0)?;
    }
    leave_session(folder)?;
    if order.network == Network::Own {
        set_loopback_up().context("loopback interface")?;
    }
    limit(order, user)?;
    // Once nothing is left that needs a right.
    user.drop_privileges()?;
    // After that: only a process that can gain no rights may filter its own calls.
    refuse_keys();
    if order.network == Network::Machine {
        leave_abstract_sockets(); // those of another network are out of reach
    }
    // Once nothing is left that reports to standard output.
    set_streams()?;
    // Last: a change of user undoes it.
    die_with(helper)
}

fn wait_for(mut helper: &UnixStream) -> Result<()> {
    helper.read_exact(&mut [0]).context("helper")
}

fn leave_propagation() -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(|error| {
        let advice = advice();
        anyhow::anyhow!("the kernel gives a user namespace, but no mounts in it ({error}); {advice}")
    })
}

/// What a pod sees of the machine and of its folder, not mounted yet.
struct Parts {
    /// The directory that the new root is mounted on until it is the root.
    base: OwnedFd,
    mounts: Vec<(PathBuf, OwnedFd)>,
    /// Targets, links.
    links: Vec<(PathBuf, &'static Path)>,
}

impl Parts {
    fn open(order: &Order, folder: &Folder) -> Result<Self> {
        let output = folder.dir(&order.output_dir);
        let base = rustix::fs::openat(CWD, &output, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context("folder")?;
        let mut parts = Parts { base, mounts: Vec::new(), links: Vec::new() };
        for path in PROGRAMS.map(Path::new).into_iter().filter(|path| path.exists()) {
            match fs::read_link(path) {
                Ok(target) => parts.links.push((target, path)),
                Err(_) => parts.mounts.push((path.to_owned(), mounts::copy(path, READ_ONLY)?)),
            }
        }
        for (names, parent, attributes) in [(ETC, "/etc", READ_ONLY), (DEVICES, "/dev", DEVICE)] {
            for path in names.split(' ').map(|name| Path::new(parent).join(name)).filter(|path| path.exists()) {
                let copy = mounts::copy(&path, attributes)?;
                parts.mounts.push((path, copy));
            }
        }
        if !order.input_files.is_empty() {
            let input = mounts::copy(&folder.dir(&order.input_dir), READ_ONLY)?;
            parts.mounts.push((order.input_dir.clone(), input));
        }
        parts.mounts.push((order.output_dir.clone(), mounts::copy(&output, WRITABLE)?));
        Ok(parts)
    }
}

/// Makes an empty file system the root, and leaves the machine's. Returns the root and the pod's /proc, which can be
/// created only while another /proc is in sight.
fn change_root(base: &OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
    let root = mounts::create("tmpfs", &[("mode", "755")], WRITABLE)?;
    // In a container that hides parts of its /proc, the kernel allows no other. Then the pod gets that one, read-only,
    // and sees the container's processes.
    let proc = mounts::create("proc", &[], NO_PROGRAMS).or_else(|_| mounts::copy(Path::new("/proc"), READ_ONLY))?;
    mounts::place_on(base, &root).context("root")?;
    rustix::process::fchdir(&root).context("root")?;
    // The old root comes to lie on the new one, at the same place.
    rustix::process::pivot_root(".", ".").context("pivot_root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context("old root")?;
    rustix::process::chdir("/").context("root")?;
    Ok((root, proc))
}

/// Fills the new root. Returns its /dev.
fn furnish(order: &Order, parts: &Parts, proc: &OwnedFd) -> Result<OwnedFd> {
    let size = order.memory.to_string();
    // As many files as there is room for, if each has a page. Empty ones have none, but take up memory too.
    let files = order.memory.div_ceil(4096).to_string();
    let mut options = vec![("mode", "1777")];
    if order.memory > 0 {
        options.extend([("size", &*size), ("nr_inodes", &files)]);
    }
    let dev = mounts::create("tmpfs", &[("mode", "755")], DEVICE)?;
    mounts::place(Path::new("/dev"), &dev)?;
    mounts::place(Path::new("/dev/shm"), &mounts::create("tmpfs", &options, NO_PROGRAMS)?)?;
    mounts::place(Path::new("/tmp"), &mounts::create("tmpfs", &options, WRITABLE)?)?;
    mounts::place(Path::new("/proc"), proc)?;
    // After /tmp and /dev: the pod's directories may lie below /tmp, and devices lie below /dev.
    for (path, mount) in &parts.mounts {
        mounts::place(path, mount)?;
    }
    for (target, link) in LINKS {
        symlink(target, link).context(link)?;
    }
    for (target, link) in &parts.links {
        symlink(target, link).with_context(|| link.display().to_string())?;
    }
    Ok(dev)
}

/// Gives the pod a host name of its own, and a session without the caller's terminal.
fn leave_session(folder: &Folder) -> Result<()> {
    rustix::system::sethostname(folder.name().as_encoded_bytes()).context("host name")?;
    rustix::process::setsid().context("session")?;
    Ok(())
}

/// No core files, and a limit of processes that holds where this machine gives no cgroup for it.
fn limit(order: &Order, user: User) -> Result<()> {
    let set = |resource, most| {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(resource, limit)
    };
    set(Resource::Core, 0).context("core")?;
    // The kernel counts the processes of a user in a user namespace, which are those of the pod. Without one it would
    // count those of other pods too, but then this process is root and has a cgroup. Linux counts so since 5.14.
    if user.in_namespace {
        let most = rustix::process::getrlimit(Resource::Nproc).maximum.unwrap_or(u64::MAX);
        set(Resource::Nproc, most.min(order.processes.into())).context("limit of processes")?;
    }
    Ok(())
}

/// No input; output and errors go to the log.
fn set_streams() -> Result<()> {
    to_null(&[0])?;
    rustix::stdio::dup2_stdout(io::stderr()).context("stdout")?;
    block_signals(&[]);
    Ok(())
}

/// From now on the kernel kills this process when the helper ends. Fails if the helper has ended before.
fn die_with(helper: &UnixStream) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("death signal")?;
    let mut gone = [PollFd::new(helper, PollFlags::empty())];
    match poll(&mut gone, Some(&Timespec::default())).context("helper")? {
        0 => Ok(()),
        _ => bail!("the helper is gone"),
    }
}
