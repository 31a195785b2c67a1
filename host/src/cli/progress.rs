//! What a person sees on standard error while a call runs.

use hops_k8s::event::Event;
use hops_k8s::pods::{ContainerState, PodStatus};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// A spinner with the pod's state; nothing unless standard error is a terminal.
pub(super) fn spinner() -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}{wide_msg} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner.set_message("creating the pod");
    spinner
}

/// Shows the events of a call until it ends. The log is written whether there is a terminal or not.
pub(super) async fn show(spinner: ProgressBar, mut events: UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        tracing::debug!(?event);
        match event {
            Event::Created { namespace, pod } => {
                spinner.set_prefix(format!("{namespace}/{pod}: "));
                spinner.set_message("scheduling");
            }
            Event::Status(status) => spinner.set_message(state(&status)),
            Event::Reading { path } => spinner.set_message(format!("fetching {path}")),
            Event::Deleting => spinner.set_message("deleting the pod"),
            // With nobody to read it, the log is of no use, and the call goes on.
            Event::Log(bytes) => spinner.suspend(|| drop(std::io::stderr().write_all(&bytes))),
            _ => {}
        }
    }
}

fn state(status: &PodStatus) -> String {
    if status.deleted {
        return "deleted by somebody else".into();
    }
    match (&status.main, &status.unschedulable) {
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
