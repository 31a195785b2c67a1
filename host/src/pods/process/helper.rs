//! The helper: one process for each pod, with one thread. It creates the pod's folder and process, waits for the end of
//! the process or of the lifeline, reports, and leaves nothing behind.

use super::cgroup::Cgroups;
use super::child::Child;
use super::disk::Disk;
use super::folder::Folder;
use super::order::{End, Order, Report};
use super::processes;
use super::system::{block_signals, close_inherited, leave_keyring, to_null};
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::process::Signal;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The first argument of a helper.
pub(super) const ARGUMENT: &str = "--hops-pod-helper";
/// How long a command may go on after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);
/// How often a pod is measured, at most.
const INTERVAL: Duration = Duration::from_millis(50);
/// How much longer than a measurement the pause after it is, at least: a pod of many files must not cost a CPU.
const PAUSE: u32 = 4;

pub(super) fn main() -> ! {
    close_inherited();
    leave_keyring();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // What stops a service sends these to the parent too, which then ends this process by the lifeline.
    block_signals(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]);
    let mut folder = None;
    run(&mut folder).unwrap_or_else(no_sandbox).print();
    let _ = to_null(&[1, 2]); // ends the reports and the log
    let _ = io::copy(&mut io::stdin(), &mut io::sink()); // the parent reads the result, then closes the lifeline
    if let Some(folder) = folder {
        folder.remove();
    }
    std::process::exit(0)
}

fn no_sandbox(error: anyhow::Error) -> Report {
    Report::Failed(format!("no sandbox: {error:#}"))
}

/// Runs the pod to its end. Leaves the folder, once there is one, to the caller.
fn run(folder: &mut Option<Folder>) -> Result<Report> {
    let mut lifeline = File::from(io::stdin().as_fd().try_clone_to_owned().context("lifeline")?);
    let order = Order::receive(&mut lifeline)?;
    let folder = folder.insert(Folder::create(&order)?);
    folder.fill(&order, &mut lifeline)?;
    let disk = Disk::open(&folder.dir(&order.output_dir), order.output_limit)?;
    let mut cgroups = Cgroups::create(&order, folder);
    let mut pod = Child::spawn(&order, folder)?;
    let deadline = Instant::now().checked_add(Duration::from_millis(order.lifetime_ms));
    let failure = pod.start(&mut cgroups).unwrap_or_else(|error| Some(no_sandbox(error)));
    let _ = to_null(&[2]); // only the pod writes to the log
    if let Some(failure) = failure {
        pod.signal(Signal::KILL);
        pod.wait()?;
        return Ok(failure);
    }
    Report::Started.print();
    let memory = cgroups.memory_to_watch();
    let measure = || {
        if memory.is_some_and(|limit| processes::memory(pod.pid) > limit) {
            return Some(End::OverMemory);
        }
        disk.is_exceeded_by(pod.pid).then_some(End::OverDisk(order.output_limit))
    };
    let mut end = watch(&pod, &mut lifeline, deadline, measure);
    pod.signal(Signal::KILL);
    let exit_code = pod.wait()?;
    // It may have written much since the last measurement, and have failed for that.
    if end == End::Itself && exit_code != 0 && disk.is_exceeded_by(pod.pid) {
        end = End::OverDisk(order.output_limit);
    }
    Ok(Report::Ended { exit_code, oom_killed: end == End::OverMemory || cgroups.oom_killed(), end })
}

/// Waits until the pod has ended or is to be killed.
fn watch(pod: &Child, lifeline: &mut File, deadline: Option<Instant>, measure: impl Fn() -> Option<End>) -> End {
    let mut grace_ends = None;
    let mut next_measurement = Instant::now().checked_add(INTERVAL);
    loop {
        let [has_ended, is_asked] = wait_until(
            [grace_ends, deadline, next_measurement].into_iter().flatten().min(),
            [PollFd::new(&pod.fd, PollFlags::IN), PollFd::new(lifeline, PollFlags::IN)],
        );
        if has_ended {
            return End::Itself;
        }
        if is_asked {
            if lifeline.read(&mut [0; 16]).unwrap_or(0) == 0 {
                return End::Asked;
            }
            pod.signal(Signal::TERM);
            grace_ends = grace_ends.or(Instant::now().checked_add(GRACE));
        }
        let is_past = |end: Option<Instant>| end.is_some_and(|end| end <= Instant::now());
        if is_past(grace_ends) {
            return End::Asked;
        }
        if is_past(deadline) {
            return End::Overtime;
        }
        if is_past(next_measurement) {
            let start = Instant::now();
            if let Some(end) = measure() {
                return end;
            }
            next_measurement = Instant::now().checked_add(INTERVAL.max(start.elapsed() * PAUSE));
        }
    }
}

/// Waits until one of the descriptors is ready, or for a time. Returns which are ready.
fn wait_until<const N: usize>(time: Option<Instant>, mut fds: [PollFd; N]) -> [bool; N] {
    let left = time.map(|time| time.saturating_duration_since(Instant::now()));
    let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
    let _ = poll(&mut fds, left.as_ref());
    fds.map(|fd| !fd.revents().is_empty())
}
