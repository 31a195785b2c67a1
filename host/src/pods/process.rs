//! Pods as sandboxed processes of this machine: no cluster, no container engine, no images.
//!
//! The command of a pod sees the machine's own programs, read-only; its input and output directories; a `/tmp` of its
//! own; and no process of another pod or of the machine. Its network is its own too, unless the options say otherwise. This
//! guards against accidents, not against hostile code.
//!
//! Three processes take part:
//!
//! - The *parent* is any program, with many threads and many pods. This file runs in it.
//! - Each pod has a *helper*: the parent's program, started again with one thread. It creates the pod's folder, sets its
//!   limits, waits for its end, and leaves nothing behind.
//! - The *command* is PID 1 of namespaces of its own.
//!
//! The parent writes the `Order` to the helper's standard input, which then stays open as a lifeline. A further byte asks
//! for SIGTERM. When it closes, the helper kills the pod and cleans up, so pods end with their parent in every case.
//!
//! Each module imports only from those before it: `order`, `system`, `processes`, `disk`, `folder`, `cgroup`, `user`,
//! `mounts`, `sandbox`, `child`, `helper`.

mod cgroup;
mod child;
mod disk;
mod folder;
mod helper;
mod log;
mod mounts;
mod order;
mod processes;
mod sandbox;
mod system;
mod user;

use super::resources::Resources;
use super::{Cause, ContainerState, Error, Identity, Phase, Pod, PodSpec, PodStatus, Pods, Terminated};
use async_trait::async_trait;
use log::Log;
pub use order::Network;
use order::{End, Order, Report, TERMINATE};
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Once;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// How much of its log is in the status of a container that failed, as in Kubernetes.
const MESSAGE_LINES: usize = 20;
const MESSAGE_BYTES: usize = 2048;

/// Turns this process into a helper, if it was started as one, and then never returns.
///
/// The program that [`ProcessOptions::helper`] names calls this at the beginning of `main`, before it starts a thread.
pub fn run_if_helper() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == helper::ARGUMENT) {
        helper::main()
    }
}

/// How pods are run on this machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProcessOptions {
    /// The program that is started for each pod. Its `main` has to begin with [`run_if_helper`].
    pub helper: PathBuf,
    /// Where pods have their folders. All users of a machine may share one, as they share `/tmp`.
    pub folder: PathBuf,
    /// Which network pods have.
    pub network: Network,
    /// How many processes and threads a pod may have. More cannot be started, and the command is told so.
    pub processes: u32,
    /// How many bytes of disk a pod's output may take up. A pod that takes up more is ended. As this is measured some
    /// times a second, it may take up more for a moment.
    pub output: u64,
}

impl Default for ProcessOptions {
    /// This program; the system's folder for temporary files; a network of their own; 2048 processes, as Podman allows;
    /// 1 GiB of output.
    fn default() -> Self {
        ProcessOptions {
            helper: "/proc/self/exe".into(),
            folder: std::env::temp_dir(),
            network: Network::default(),
            processes: 2048,
            output: 1 << 30,
        }
    }
}

/// The backend. Pods can be created only within a tokio runtime.
#[derive(Debug)]
pub struct ProcessPods {
    options: ProcessOptions,
    tasks: TaskTracker,
    sweep: Once,
}

impl ProcessPods {
    /// Runs pods on this machine.
    pub fn new(options: ProcessOptions) -> Self {
        ProcessPods { options, tasks: TaskTracker::new(), sweep: Once::new() }
    }

    /// Tries whether this machine allows sandboxes. This takes some milliseconds.
    ///
    /// # Errors
    /// What is missing, and how to fix it.
    pub async fn check(&self) -> Result<(), Error> {
        let mut pod = self.start(Order {
            // No program is needed: what fails is found before the attempt to run one.
            command: vec!["/".into()],
            output_dir: "/output".into(),
            lifetime_ms: 10_000,
            ..self.order()
        })?;
        pod.send(&[]).await?;
        while !matches!(pod.changed().await?.main, ContainerState::Terminated(_)) {}
        pod.delete().await
    }

    /// The part of an order that does not depend on the pod's spec.
    fn order(&self) -> Order {
        let ProcessOptions { folder, network, processes, output, .. } = &self.options;
        Order {
            folder: folder.join(format!("{}{}", folder::PREFIX, uuid::Uuid::new_v4().simple())),
            network: *network,
            processes: *processes,
            output_limit: *output,
            ..Order::default()
        }
    }

    /// Starts a helper, which waits for its order.
    fn start(&self, order: Order) -> Result<ProcessPod, Error> {
        // Helpers that were killed have left their folders.
        self.sweep.call_once(|| {
            let folder = self.options.folder.clone();
            self.tasks.spawn_blocking(move || folder::sweep(&folder));
        });
        let helper = &self.options.helper;
        let mut process = Command::new(helper)
            .arg(helper::ARGUMENT)
            .env_clear()
            .process_group(0) // so that Ctrl-C reaches only the parent
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::Other(format!("the helper {} cannot be started: {error}", helper.display())))?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(lifeline), Some(reports), Some(output)) = pipes else {
            return Err(Error::Other("the helper has no standard streams".into()));
        };
        let (status, mut seen) = watch::channel(Ok(PodStatus::waiting("ContainerCreating", "")));
        seen.mark_changed();
        let (log, followed) = watch::channel(Log::default());
        let kept = order.keep.then(|| folder::kept(&order.folder));
        self.tasks.spawn(listen(process, reports, output, status, log, kept));
        Ok(ProcessPod {
            name: order.folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            order,
            lifeline: Some(lifeline),
            status: seen,
            log: followed,
        })
    }
}

#[async_trait]
impl Pods for ProcessPods {
    async fn create(&self, spec: PodSpec, _: Identity) -> Result<Box<dyn Pod>, Error> {
        let resources = Resources::of(&spec)?;
        if spec.command.is_empty() {
            let why = "command: must not be empty, because a process of this machine has no image that brings a command; \
                       name the program to run";
            return Err(Error::Invalid(why.into()));
        }
        let output_dir = directory(&spec.output_dir)?;
        let input_dir = if spec.input_files.is_empty() { PathBuf::new() } else { directory(&spec.input_dir)? };
        if !spec.input_files.is_empty() && (input_dir.starts_with(&output_dir) || output_dir.starts_with(&input_dir)) {
            return Err(Error::Invalid(format!(
                "the directories {} and {} must not contain each other",
                input_dir.display(),
                output_dir.display()
            )));
        }
        if let Some(file) = spec.input_files.iter().find(|file| !is_below(Path::new(&file.path))) {
            return Err(Error::Invalid(format!(
                "the input file {:?} must have a relative path without \"..\"",
                file.path
            )));
        }
        let mut pod = self.start(Order {
            command: spec.command.into_iter().chain(spec.args).collect(),
            env: spec.env,
            input_dir,
            input_files: spec.input_files.iter().map(|file| (file.path.clone(), file.content.len() as u64)).collect(),
            output_dir,
            nano_cpus: resources.nano_cpus,
            memory: resources.memory,
            lifetime_ms: spec.lifetime_ms,
            keep: spec.keep,
            ..self.order()
        })?;
        let contents: Vec<&[u8]> = spec.input_files.iter().map(|file| &*file.content).collect();
        pod.send(&contents).await?;
        Ok(Box::new(pod))
    }

    async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

/// The path of one of the pod's directories, checked.
fn directory(text: &str) -> Result<PathBuf, Error> {
    let path: PathBuf = Path::new(text).components().collect();
    if !path.strip_prefix("/").is_ok_and(is_below) {
        return Err(Error::Invalid(format!(
            "the directory {text:?} must be an absolute path below \"/\" without \"..\""
        )));
    }
    match sandbox::reserved().find(|reserved| path.starts_with(reserved)) {
        None => Ok(path),
        Some(reserved) => Err(Error::Invalid(format!(
            "the directory {text:?} cannot be used: a process of this machine has the machine's own {reserved} there; \
             choose another"
        ))),
    }
}

/// Whether a path leads to something below the directory that it starts from.
fn is_below(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Turns a helper's reports into statuses, and the command's output into the log. Returns when the helper has ended.
async fn listen(
    mut helper: Child,
    reports: ChildStdout,
    output: ChildStderr,
    status: watch::Sender<Result<PodStatus, Error>>,
    log: watch::Sender<Log>,
    kept: Option<PathBuf>,
) {
    let mut reports = BufReader::new(reports).lines();
    let ended = async {
        while let Ok(Some(line)) = reports.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Report::Started) => {
                    status.send_modify(|status| *status = Ok(PodStatus::running()));
                }
                report => return report.ok(),
            }
        }
        None
    };
    // The last status contains the end of the log.
    let (report, ()) = tokio::join!(ended, log::copy(output, &log));
    let last = last_status(report, &log.borrow());
    status.send_modify(|status| *status = last);
    drop(log);
    let end = helper.wait().await;
    if let Some(folder) = kept {
        tracing::warn!(folder = %folder.display(), "the files of the pod are kept, as asked; delete them when you are done");
    }
    tracing::debug!(?end, "helper ended");
}

fn last_status(report: Option<Report>, log: &Log) -> Result<PodStatus, Error> {
    let (exit_code, oom_killed, end) = match report {
        Some(Report::Ended { exit_code, oom_killed, end }) => (exit_code, oom_killed, end),
        Some(Report::NotStarted(message)) => {
            let end = Terminated::new(128, "StartError", message);
            return Ok(PodStatus::new(Phase::Failed, ContainerState::Terminated(end)));
        }
        Some(Report::Failed(why)) => return Err(Error::Other(why)),
        Some(Report::Started) | None => {
            return Err(Error::Gone(
                "the process that supervised the command was killed, and the command with it".into(),
            ));
        }
    };
    let reason = match exit_code {
        _ if oom_killed => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    };
    let message = if exit_code == 0 { String::new() } else { log.tail(MESSAGE_LINES, MESSAGE_BYTES) };
    let main = ContainerState::Terminated(Terminated::new(exit_code, reason, message));
    let mut status = PodStatus::new(if exit_code == 0 { Phase::Succeeded } else { Phase::Failed }, main);
    let (reason, message) = match end {
        End::Itself | End::Asked | End::OverMemory => return Ok(status),
        End::Overtime => {
            ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline".to_owned())
        }
        End::OverDisk(limit) => {
            ("Evicted", format!("the output directory took up more than its limit of {limit} bytes; write less to it"))
        }
    };
    status.phase = Phase::Failed;
    status.cause = Cause::new(reason, message);
    Ok(status)
}

struct ProcessPod {
    name: String,
    order: Order,
    /// Dropping it ends the pod.
    lifeline: Option<ChildStdin>,
    status: watch::Receiver<Result<PodStatus, Error>>,
    log: watch::Receiver<Log>,
}

impl ProcessPod {
    /// Sends the order and the contents of the input files.
    async fn send(&mut self, contents: &[&[u8]]) -> Result<(), Error> {
        let Some(lifeline) = &mut self.lifeline else { return Ok(()) };
        let order = self
            .order
            .encode()
            .map_err(|error| Error::Other(format!("the order cannot be written as JSON: {error}")))?;
        for part in std::iter::once(&*order).chain(contents.iter().copied()) {
            if lifeline.write_all(part).await.is_err() {
                break; // The helper has given up; its report says why.
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Pod for ProcessPod {
    fn name(&self) -> &str {
        &self.name
    }

    async fn changed(&mut self) -> Result<PodStatus, Error> {
        if self.status.changed().await.is_err() {
            // There has been the last one.
            std::future::pending::<()>().await;
        }
        self.status.borrow_and_update().clone()
    }

    async fn read_file(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let (folder, file) = (self.order.folder.clone(), self.order.output_dir.join(path));
        let read = tokio::task::spawn_blocking(move || folder::read(&folder, &file, limit)).await;
        read.unwrap_or_else(|error| Err(Error::Other(format!("the result cannot be read: {error}"))))
    }

    async fn tail_logs(&mut self, lines: u32) -> Result<String, Error> {
        Ok(self.log.borrow().tail(lines as usize, usize::MAX))
    }

    async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error> {
        Ok(log::follow(self.log.clone()))
    }

    async fn delete(&mut self) -> Result<(), Error> {
        let Some(mut lifeline) = self.lifeline.take() else { return Ok(()) };
        let mut status = self.status.clone();
        let is_over = |status: &Result<PodStatus, Error>| {
            status.as_ref().is_ok_and(|status| matches!(status.main, ContainerState::Terminated(_))) || status.is_err()
        };
        if !is_over(&status.borrow_and_update()) && lifeline.write_all(&[TERMINATE]).await.is_ok() {
            let _ = status.wait_for(is_over).await; // fails if the helper is gone
        }
        drop(lifeline);
        while status.changed().await.is_ok() {}
        Ok(())
    }
}
