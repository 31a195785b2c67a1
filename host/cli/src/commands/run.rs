//! `hops run`: the calls in a file, run and printed.

use super::batch;
use crate::backend::{self, Local};
use crate::exit::{CommandError, Status};
use crate::files::call_file::{self, Call, Variables};
use crate::files::policy;
use crate::global::Global;
use crate::interrupt::Interrupt;
use crate::output::document::{self, Output};
use crate::output::progress;
use crate::plugins;
use futures::future::join_all;
use hops_k8s::event::Events;
use hops_k8s::plugin::{CallError, Plugins};
use hops_k8s::pods::{NoPods, Pods};
use hops_k8s::runner::Runner;
use indicatif::MultiProgress;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A .hops file with calls, or a .json file with the inputs of k8s_run
    #[arg(required_unless_present = "batch", conflicts_with = "batch")]
    file: Option<PathBuf>,
    /// Run this call [default: all, with their results by name]
    #[arg(long, value_name = "NAME", conflicts_with = "batch")]
    call: Option<String>,
    /// Set a variable of the file's expressions to a string
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable, conflicts_with = "batch")]
    set: Vec<(String, String)>,
    /// JSON file that is the variable event
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    event: Option<PathBuf>,
    /// Print the result document or the result file [default: json]
    #[arg(short, long, value_name = "json|body", default_value = "json", hide_possible_values = true)]
    #[arg(hide_default_value = true, conflicts_with = "batch")]
    output: Output,
    /// Show the containers' logs on standard error while they run
    #[arg(long, conflicts_with = "batch")]
    logs: bool,
    /// Run without a cluster: on Docker or Podman, or as a process
    #[arg(long, value_name = "engine|process", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "auto", hide_possible_values = true)]
    local: Option<Local>,
    /// Let processes of --local use this machine's network
    #[arg(long, requires = "local")]
    network: bool,
    #[command(flatten)]
    batch: batch::Arguments,
}

/// `NAME=VALUE` of the command line.
fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    match hcl::Identifier::new(name) {
        Ok(_) if name == "event" => Err("the variable event is given with --event FILE.json".into()),
        Ok(_) => Ok((name.into(), value.into())),
        Err(_) => {
            Err(format!("{name:?} cannot be the name of a variable; use letters, digits, _ and -, and no digit first"))
        }
    }
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> Result<Status, CommandError> {
    match &arguments.file {
        Some(file) => run_file(global, arguments, file).await,
        None => batch::run(global, &arguments.batch, arguments.local, arguments.network).await,
    }
}

async fn run_file(global: &Global, arguments: &Arguments, file: &Path) -> Result<Status, CommandError> {
    let policy = policy::load(global.policy.as_deref())?;
    let calls = read(file, arguments)?;
    if calls.len() > 1 && matches!(arguments.output, Output::Body) {
        return Err(CommandError::usage("-o body prints one result; choose one with --call NAME"));
    }
    let plugins = plugins::plugins(global, calls.len()).await?;
    let handlers = handlers(&plugins, file, &calls)?;

    let mut is_any_valid = false;
    for (call, (app, handler)) in calls.iter().zip(&handlers) {
        let Some(plugin) = plugins.get(app) else { continue };
        let problems = plugin.check(handler, &call.inputs).await.map_err(|error| defect(file, call, &error))?;
        is_any_valid |= problems.is_empty();
        for problem in &problems {
            eprintln!("hops: {}:{}: {}", file.display(), call.position(&problem.path), problem.message);
        }
    }
    // Without a good call no pod will be created, and the results say why.
    let pods = if is_any_valid {
        backend::open(global, arguments.local, arguments.network).await?
    } else {
        Arc::new(NoPods) as Arc<dyn Pods>
    };

    let mut interrupt = Interrupt::listen()?;
    let spinners = MultiProgress::new();
    let runner = Runner::new(plugins, pods, policy);
    let mut shown = vec![];
    let running = calls.iter().zip(&handlers).map(|(call, (app, handler))| {
        let (events, receiver) = Events::channel(arguments.logs);
        let label = if calls.len() > 1 { format!("{}: ", call.name) } else { String::new() };
        let spinner = spinners.add(progress::spinner(global.quiet));
        shown.push(tokio::spawn(progress::show(spinner, label, receiver)));
        runner.call(runner.ctx().events(events), app, handler, &call.inputs)
    });
    let running = join_all(running);
    let results = tokio::select! {
        results = running => Some(results),
        () = interrupt.next() => None,
    };
    let closed = backend::close(&**runner.pods(), &mut interrupt).await;
    // The calls have dropped their ends of the channels, so this ends when everything is shown.
    join_all(shown).await;
    closed?;
    let Some(results) = results else {
        let what = if calls.len() > 1 { "pods are" } else { "pod is" };
        return Err(CommandError::interrupted(format!("interrupted; the {what} deleted")));
    };

    let results: Vec<_> = calls.iter().map(|call| &*call.name).zip(results).collect();
    // A reader that has seen enough, such as `head`, is not an error.
    let _ = document::print(&results, arguments.output);
    Ok(results.iter().map(|(_, result)| document::status(result)).max().unwrap_or(Status::Completed))
}

/// The calls in a file, or the one that `--call` names.
fn read(file: &Path, arguments: &Arguments) -> Result<Vec<Call>, CommandError> {
    let mut variables: Variables =
        arguments.set.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    if let Some(path) = &arguments.event {
        let event = serde_json::from_str(&read_text(path)?)
            .map_err(|error| CommandError::usage(format!("{}: not valid JSON: {error}", path.display())))?;
        variables.insert("event".into(), event);
    }
    let calls = call_file::parse(file, &read_text(file)?, &variables).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CommandError::usage(lines.join("\n"))
    })?;
    let Some(name) = &arguments.call else { return Ok(calls) };
    let names: Vec<String> = calls.iter().map(|call| format!("{:?}", call.name)).collect();
    let chosen: Vec<Call> = calls.into_iter().filter(|call| call.name == *name).collect();
    if chosen.is_empty() {
        let known = names.join(", ");
        return Err(CommandError::usage(format!("{} has no call {name:?}; choose one of {known}", file.display())));
    }
    Ok(chosen)
}

fn read_text(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path)
        .map_err(|error| CommandError::usage(format!("cannot read {}: {error}", path.display())))
}

/// The apps and handlers of the calls. A file that contains inputs alone names none, and gets the first that there is.
fn handlers(plugins: &Plugins, file: &Path, calls: &[Call]) -> Result<Vec<(String, String)>, CommandError> {
    let find = |call: &Call| {
        let Some((app, handler)) = &call.app_handler else { return first_handler(plugins) };
        if plugins.has(app, handler) {
            return Ok((app.clone(), handler.clone()));
        }
        let known = plugins.handlers().map(|(app, handler)| format!("{app}_{}", handler.name));
        Err(CommandError::usage(format!(
            "{}:{}: there is no call {app}_{handler}; known are {}",
            file.display(),
            call.position(&[]),
            known.collect::<Vec<_>>().join(", ")
        )))
    };
    calls.iter().map(find).collect()
}

/// The app and handler for a call that names none.
pub(crate) fn first_handler(plugins: &Plugins) -> Result<(String, String), CommandError> {
    let first = plugins.handlers().next().map(|(app, handler)| (app.to_owned(), handler.name.clone()));
    first.ok_or_else(|| CommandError::usage("the plugin has no handlers"))
}

fn defect(file: &Path, call: &Call, error: &CallError) -> CommandError {
    CommandError::errored(format!("{}:{}: {error}", file.display(), call.position(&[])))
}
