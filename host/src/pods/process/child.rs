//! The pod's process, as its helper sees it: PID 1 of the pod. All processes of the pod end with it.

use super::cgroup::Cgroups;
use super::folder::Folder;
use super::order::{Network, Order, Report};
use super::user::{User, advice};
use super::{sandbox, system};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

const NAMESPACES: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

pub(super) struct Child {
    pub pid: Pid,
    pub fd: OwnedFd,
    user: User,
    /// The child waits for a byte here before it does anything. It then sends the report of its failure, or closes the
    /// socket when it becomes the command.
    socket: UnixStream,
}

impl Child {
    /// Forks a process that will become the command.
    pub fn spawn(order: &Order, folder: &Folder) -> Result<Self> {
        let is_root = User::give(&folder.dir(&order.output_dir))?;
        let (socket, helper) = UnixStream::pair().context("socket")?;
        let (pid, in_namespace) = clone(order.network)?;
        let user = User { is_root, in_namespace };
        let Some(pid) = pid else {
            drop(socket);
            let report = sandbox::enter(order, folder, &helper, user);
            let _ = serde_json::to_writer(&helper, &report); // fails if the helper is gone
            std::process::exit(1)
        };
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("pidfd")?;
        Ok(Child { pid, fd, user, socket })
    }

    /// Lets the child become the command, and returns when it has. Otherwise returns the child's report.
    pub fn start(&mut self, cgroups: &mut Cgroups) -> Result<Option<Report>> {
        self.user.map(self.pid)?;
        cgroups.add(self.pid);
        self.socket.write_all(&[0]).context("pod")?;
        let mut report = Vec::new();
        self.socket.read_to_end(&mut report).context("pod")?;
        if report.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&report).context("pod")?)) }
    }

    /// Sends a signal, if the child still lives.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.fd, signal);
    }

    /// Waits for the end, and returns the exit code: 128 + N after signal N.
    pub fn wait(&self) -> Result<i32> {
        let status = rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED);
        let status = status.context("wait")?.context("wait: no status")?;
        let signal = status.terminating_signal().map(|signal| 128 + signal);
        status.exit_status().or(signal).context("the command has no exit status")
    }
}

/// Forks into new namespaces: with one of users where that is allowed, otherwise with the CAP_SYS_ADMIN that this
/// process has. Returns the child's id, `None` in the child, and whether there is a user namespace.
fn clone(network: Network) -> Result<(Option<Pid>, bool)> {
    let (network, refused) = match network {
        Network::Own => (libc::CLONE_NEWNET, "a user namespace or a network namespace"),
        Network::Machine => (0, "a user namespace"),
    };
    let with = match system::clone(NAMESPACES | network | libc::CLONE_NEWUSER) {
        Ok(child) => return Ok((child, true)),
        Err(error) => error,
    };
    match system::clone(NAMESPACES | network) {
        Ok(child) => Ok((child, false)),
        Err(without) => bail!(
            "the kernel refuses {refused} ({with}), and without a user namespace CAP_SYS_ADMIN is needed ({without}); {}",
            advice()
        ),
    }
}
