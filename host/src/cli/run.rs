//! `hops run`: the call in a file, run and printed.

use super::call_file::{self, Call};
use super::document::Document;
use super::{Failure, Global, Output, Status, progress};
use hops_k8s::event::Events;
use hops_k8s::plugin::{CallCtx, CallError, Plugin};
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s::pods::{NoPods, Pods};
use hops_k8s::policy::Policy;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// What to run.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A .hops file with a call, or a .json file with the inputs of k8s_run
    file: PathBuf,
    /// What to print
    #[arg(short, long, value_name = "WHAT", default_value = "json")]
    output: Output,
    /// Show the container's log on standard error while it runs
    #[arg(long)]
    logs: bool,
}

pub(super) async fn run(global: &Global, arguments: &Arguments) -> Result<Status, Failure> {
    let file = &arguments.file;
    let call = read(file)?;
    let plugin = super::plugin()?;
    let handler = handler(&plugin, file, &call).await?;

    let problems = plugin.check(&handler, &call.inputs).await.map_err(|error| defect(file, &call, error))?;
    for problem in &problems {
        eprintln!("hops: {}:{}: {}", file.display(), call.place(&problem.path), problem.message);
    }
    let pods: Arc<dyn Pods> = if problems.is_empty() {
        let mut options = KubeOptions::default();
        options.kubeconfig.clone_from(&global.kubeconfig);
        options.context.clone_from(&global.context);
        options.port_forward = global.port_forward;
        let pods = KubePods::connect(options).await;
        Arc::new(pods.map_err(|error| Failure { status: Status::Unavailable, message: error.to_string() })?)
    } else {
        // There will be no pod; the result says so.
        Arc::new(NoPods)
    };

    let (events, receiver) = Events::channel(arguments.logs);
    let spinner = progress::spinner();
    let shown = tokio::spawn(progress::show(spinner.clone(), receiver));
    let ctx = CallCtx::new(pods.clone(), Arc::new(Policy::default())).events(events);
    let mut interrupt = Interrupt::listen()?;
    let result = tokio::select! {
        result = plugin.call(ctx, &handler, &call.inputs) => Some(result),
        () = interrupt.next() => None,
    };
    if result.is_none() {
        spinner.set_message("interrupted, deleting the pod");
    }
    tokio::select! {
        () = pods.drained() => {}
        () = interrupt.next() => {
            spinner.finish_and_clear();
            let message = "interrupted again: the pod may be left; its own deadline will end it".into();
            return Err(Failure { status: Status::Interrupted, message });
        }
    }
    // The call has dropped its end of the channel, so this ends when all is shown.
    let _ = shown.await;
    spinner.finish_and_clear();
    let Some(result) = result else {
        return Err(Failure { status: Status::Interrupted, message: "interrupted; the pod is deleted".into() });
    };

    let text = result.map_err(|error| defect(file, &call, error))?;
    let document = Document::parse(&text)
        .map_err(|error| Failure::usage(format!("the plugin's result is no result document: {error}")))?;
    // A reader that has seen enough, such as `head`, is no error.
    let _ = document.print(arguments.output);
    Ok(document.status())
}

/// The call in a file.
fn read(file: &Path) -> Result<Call, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
    let mut calls = call_file::parse(file, &text).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::usage(lines.join("\n"))
    })?;
    match (calls.pop(), calls.len()) {
        (Some(call), 0) => Ok(call),
        (_, more) => Err(Failure::usage(format!(
            "{} has {} calls, but one at a time is run; put each into a file of its own",
            file.display(),
            more + 1
        ))),
    }
}

/// The handler that the call names; in a file that holds inputs alone, the app's first.
async fn handler(plugin: &Plugin, file: &Path, call: &Call) -> Result<String, Failure> {
    let description = plugin.describe().await.map_err(|error| defect(file, call, error))?;
    let Some((app, handler)) = &call.app_handler else {
        let first = description.handlers.first().map(|handler| handler.name.clone());
        return first.ok_or_else(|| Failure::usage("the plugin has no handlers"));
    };
    let known = description.handlers.iter().map(|known| format!("{}_{}", description.name, known.name));
    if *app == description.name && description.handlers.iter().any(|known| known.name == *handler) {
        return Ok(handler.clone());
    }
    Err(Failure::usage(format!(
        "{}:{}: there is no call {app}_{handler}; known are {}",
        file.display(),
        call.place(&[]),
        known.collect::<Vec<_>>().join(", ")
    )))
}

fn defect(file: &Path, call: &Call, error: CallError) -> Failure {
    Failure { status: Status::Errored, message: format!("{}:{}: {error}", file.display(), call.place(&[])) }
}

/// Ctrl-C, and what service managers send instead.
struct Interrupt {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupt {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::usage(format!("cannot listen for signals: {error}")));
        Ok(Interrupt { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
