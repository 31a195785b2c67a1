//! Progress on standard error while calls run.

use hops_k8s::event::Event;
use hops_k8s::pods::{ContainerState, PodStatus};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::fmt;
use std::io::Write;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// A spinner with the state of a pod. It is hidden with `--quiet`, and unless standard error is a terminal.
pub(crate) fn spinner(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}{wide_msg} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// A bar for many calls. It is hidden with `--quiet`, and unless standard error is a terminal.
pub(crate) fn bar(quiet: bool, total: u64) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {pos} of {len} done, {msg}, {rate}, {elapsed}, {eta} left")
    {
        let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = write!(out, "{:.1}/s", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate));
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Shows the events of a call until it ends, each after the label. The log is written with or without a terminal.
pub(crate) async fn show(spinner: ProgressBar, label: String, mut events: UnboundedReceiver<Event>) {
    spinner.set_prefix(label.clone());
    spinner.set_message("creating the pod");
    let mut log = Log { label: label.clone(), line: vec![] };
    while let Some(event) = events.recv().await {
        tracing::debug!(?event);
        match event {
            Event::Created { namespace, pod } => {
                spinner.set_prefix(format!("{label}{namespace}/{pod}: "));
                spinner.set_message("scheduling");
            }
            Event::Status(status) => spinner.set_message(state(&status)),
            Event::Reading { path } => spinner.set_message(format!("fetching {path}")),
            Event::Deleting => spinner.set_message("deleting the pod"),
            Event::Log(bytes) => spinner.suspend(|| log.write(&bytes)),
            _ => {}
        }
    }
    log.end();
    spinner.finish_and_clear();
}

/// A container's log on standard error. If it cannot be written, the call goes on without it.
struct Log {
    /// The beginning of each line.
    label: String,
    /// The line that has not ended yet.
    line: Vec<u8>,
}

impl Log {
    fn write(&mut self, bytes: &[u8]) {
        if self.label.is_empty() {
            return drop(std::io::stderr().write_all(bytes));
        }
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = [self.label.as_bytes(), &self.line].concat();
                drop(std::io::stderr().write_all(&line));
                self.line.clear();
            }
        }
    }

    fn end(&mut self) {
        if !self.line.is_empty() {
            self.write(b"\n");
        }
    }
}

fn state(status: &PodStatus) -> String {
    if status.deleted {
        return "being deleted by somebody else".into();
    }
    match (&status.main, &status.unschedulable) {
        (ContainerState::Waiting(_), Some(_)) if status.waits_for_room => {
            "waiting for room that other calls take up".into()
        }
        (ContainerState::Waiting(_), Some(words)) => format!("waiting for a node: {words}"),
        (ContainerState::Waiting(cause), None) => match &*cause.reason {
            "" => "scheduling".into(),
            "ContainerCreating" | "PodInitializing" => "pulling and starting".into(),
            reason => format!("{reason}: {}", cause.message),
        },
        (ContainerState::Running, _) => "running".into(),
        (ContainerState::Terminated(end), _) => format!("ended with exit code {}", end.exit_code),
    }
}
