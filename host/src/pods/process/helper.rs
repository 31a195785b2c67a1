//! The helper: one process for each pod, one thread. It makes the pod's process, waits for it or for the end of the
//! lifeline, reports on standard output, and leaves nothing behind.

use super::cgroup::Cgroups;
use super::folder::Folder;
use super::sandbox;
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The first argument of a helper.
pub(super) const ARGUMENT: &str = "--hops-pod-helper";
/// What asks for the pod's end, once the order is sent.
pub(super) const TERMINATE: &[u8] = &[0];
/// What a command has for its end after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);

/// What root becomes, so that a pod is never the machine's uid 0, which owns /proc/sys and /proc/sysrq-trigger and may
/// write there without any capability.
pub(super) const UNPRIVILEGED: u32 = 65534;

const NAMESPACES: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// What to run. On the lifeline: its length as four bytes, itself as JSON, the contents of the input files.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Order {
    /// To be made. Its name is the pod's.
    pub folder: PathBuf,
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    pub input_dir: PathBuf,
    /// Names below `input_dir`, sizes.
    pub input_files: Vec<(String, u64)>,
    pub output_dir: PathBuf,
    /// Billionths of a CPU; zero is no limit.
    pub nano_cpus: u64,
    /// Bytes; zero is no limit.
    pub memory: u64,
    pub lifetime_ms: u64,
    /// Whether the pod's files stay.
    pub keep: bool,
}

impl Order {
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
        Ok([&length.to_le_bytes(), &*json].concat())
    }

    fn receive(lifeline: &mut File) -> Result<Self> {
        let mut length = [0; 4];
        lifeline.read_exact(&mut length).context("order")?;
        let mut json = vec![0; u32::from_le_bytes(length) as usize];
        lifeline.read_exact(&mut json).context("order")?;
        serde_json::from_slice(&json).context("order")
    }
}

/// What becomes of a pod, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The command runs.
    Started,
    /// The command cannot be run, and why.
    NotStarted(String),
    /// The command has ended.
    Ended {
        /// 128 + N after signal N.
        exit_code: i32,
        oom_killed: bool,
        /// It was ended because it outlived the order's `lifetime_ms`.
        overtime: bool,
    },
    /// There is no sandbox, and why.
    Failed(String),
}

impl Report {
    fn send(&self) {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush()); // else the parent is gone
    }
}

pub(super) fn main() -> ! {
    close_inherited();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // What stops a service stops its parent too, which then ends this process by the lifeline.
    block_signals(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]);
    let mut folder = None;
    let report = supervise(&mut folder).unwrap_or_else(|error| Report::Failed(format!("no sandbox: {error:#}")));
    report.send();
    let _ = to_null(&[1, 2]); // ends the reports and the log
    let _ = io::copy(&mut io::stdin(), &mut io::sink()); // the parent reads the files, then lets go
    if let Some(folder) = folder {
        folder.remove();
    }
    std::process::exit(0)
}

fn supervise(folder: &mut Option<Folder>) -> Result<Report> {
    let mut lifeline = File::from(io::stdin().as_fd().try_clone_to_owned().context("lifeline")?);
    let order = Order::receive(&mut lifeline)?;
    let folder = folder.insert(Folder::create(&order)?);
    folder.fill(&order, &mut lifeline)?;
    let mut is_root = rustix::process::geteuid().is_root();
    if is_root {
        let output = folder.dir(&order.output_dir);
        match std::os::unix::fs::chown(&output, Some(UNPRIVILEGED), Some(UNPRIVILEGED)) {
            // The root of a rootless container, which has no other users to become, is an ordinary user outside.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => is_root = false,
            given => given.context("output directory")?,
        }
    }
    let mut cgroups = Cgroups::create(&order, folder);

    let (mut ours, theirs) = UnixStream::pair().context("socket")?;
    let (child, in_user_namespace) = clone()?;
    let Some(pid) = child else {
        drop(ours);
        let report = sandbox::enter(&order, folder, &theirs, in_user_namespace, is_root);
        let _ = serde_json::to_writer(&theirs, &report); // else the helper is gone
        std::process::exit(1)
    };
    drop(theirs);
    let deadline = Instant::now().checked_add(Duration::from_millis(order.lifetime_ms));
    let pod = Process { pid, fd: rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("pidfd")? };
    let failure = start(&pod, &mut ours, &mut cgroups, in_user_namespace, is_root).unwrap_or_else(|error| {
        pod.signal(Signal::KILL);
        Some(Report::Failed(format!("no sandbox: {error:#}")))
    });
    let _ = to_null(&[2]); // the log is the pod's alone
    if let Some(report) = failure {
        pod.wait()?;
        return Ok(report);
    }
    Report::Started.send();
    let (mut oom_killed, mut overtime) = (false, false);
    match watch(&pod, &mut lifeline, &cgroups, deadline) {
        Watched::Ended => {}
        Watched::Cancelled => pod.signal(Signal::KILL),
        Watched::OverMemory => {
            pod.signal(Signal::KILL);
            oom_killed = true;
        }
        Watched::Overtime => {
            pod.signal(Signal::KILL);
            overtime = true;
        }
    }
    let status = pod.wait()?;
    let exit_code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
    let exit_code = exit_code.context("the command has no exit status")?;
    Ok(Report::Ended { exit_code, oom_killed: oom_killed || cgroups.oom_killed(), overtime })
}

/// Lets the pod's process go on to its command. Gives its own report if it did not come so far.
fn start(
    pod: &Process,
    socket: &mut UnixStream,
    cgroups: &mut Cgroups,
    in_user_namespace: bool,
    is_root: bool,
) -> Result<Option<Report>> {
    if in_user_namespace {
        map_ids(pod.pid, is_root)?;
    }
    cgroups.add(pod.pid);
    socket.write_all(&[0]).context("pod")?;
    let mut report = Vec::new();
    socket.read_to_end(&mut report).context("pod")?; // ends when the pod becomes the command
    if report.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&report).context("pod")?)) }
}

/// How the watch over a pod ended.
enum Watched {
    Ended,
    Cancelled,
    OverMemory,
    Overtime,
}

fn watch(pod: &Process, lifeline: &mut File, cgroups: &Cgroups, deadline: Option<Instant>) -> Watched {
    let mut terminated = None;
    loop {
        let left = |end: Instant| end.saturating_duration_since(Instant::now());
        let wait = [terminated.map(left), deadline.map(left), cgroups.watch_interval()].into_iter().flatten().min();
        let wait = wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() });
        let mut fds = [PollFd::new(&pod.fd, PollFlags::IN), PollFd::new(lifeline, PollFlags::IN)];
        let _ = poll(&mut fds, wait.as_ref());
        let [has_ended, is_told] = fds.map(|fd| !fd.revents().is_empty());
        if has_ended {
            return Watched::Ended;
        }
        if is_told {
            if lifeline.read(&mut [0; 16]).unwrap_or(0) == 0 {
                return Watched::Cancelled;
            }
            pod.signal(Signal::TERM);
            terminated = terminated.or(Instant::now().checked_add(GRACE));
        }
        let is_past = |end: Option<Instant>| end.is_some_and(|end| end <= Instant::now());
        if is_past(terminated) {
            return Watched::Cancelled;
        }
        if is_past(deadline) {
            return Watched::Overtime;
        }
        if cgroups.is_exceeded_by(pod.pid) {
            return Watched::OverMemory;
        }
    }
}

/// PID 1 of a pod. All processes of the pod end with it.
struct Process {
    pid: Pid,
    fd: OwnedFd,
}

impl Process {
    fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.fd, signal); // it may have ended
    }

    fn wait(&self) -> Result<WaitIdStatus> {
        let status = rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED);
        status.context("wait")?.context("wait: no status")
    }
}

/// Makes the pod's process: in a user namespace where that is allowed, else with the CAP_SYS_ADMIN that this process
/// has. Gives its id, none to itself, and whether it is in a user namespace.
fn clone() -> Result<(Option<Pid>, bool)> {
    let mut refusals = Vec::new();
    for (is_user, flag) in [(true, libc::CLONE_NEWUSER), (false, 0)] {
        match clone_with(NAMESPACES | flag | libc::SIGCHLD) {
            Ok(child) => return Ok((child, is_user)),
            Err(error) => refusals.push(error),
        }
    }
    let [with, without] = &*refusals else { bail!("{refusals:?}") };
    bail!(
        "the kernel refuses a user namespace ({with}), and without one CAP_SYS_ADMIN is needed ({without}); {}",
        advice()
    )
}

#[allow(unsafe_code, reason = "rustix has no clone")]
fn clone_with(flags: i32) -> io::Result<Option<Pid>> {
    // SAFETY: this process has one thread and shares no memory with the new one, which goes on alone with a copy, as
    // after fork; no lock can be held by a thread that is not there.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid as i32)),
    }
}

/// How to have the kernel allow user namespaces.
pub(super) fn advice() -> String {
    for (setting, off, on) in [
        ("user/max_user_namespaces", "0", "15000"),
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

fn map_ids(pid: Pid, is_root: bool) -> Result<()> {
    let (setgroups, uid, gid) = if is_root {
        ("allow", UNPRIVILEGED, UNPRIVILEGED)
    } else {
        ("deny", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    };
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    fs::write(proc.join("setgroups"), setgroups).context("setgroups")?;
    fs::write(proc.join("uid_map"), format!("0 {uid} 1")).context("uid_map")?;
    fs::write(proc.join("gid_map"), format!("0 {gid} 1")).context("gid_map")
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
    // SAFETY: a set of signals is plain bits, which sigemptyset then makes valid; all pointers are to this one.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

#[allow(unsafe_code, reason = "rustix has no close_range")]
fn close_inherited() {
    // SAFETY: the first act of a process that has opened nothing; what is open was left to it by mistake.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}
