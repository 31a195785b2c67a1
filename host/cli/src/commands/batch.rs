//! `hops run --batch`: a call for each line of a file. Each result is written when its call ends.

mod lines;

use super::run::first_handler;
use crate::backend::{self, Local};
use crate::exit::{CommandError, Status};
use crate::files::policy;
use crate::global::Global;
use crate::interrupt::Interrupt;
use crate::output::document;
use crate::output::progress;
use crate::plugins;
use hops_k8s::document::CallResult;
use hops_k8s::runner::Runner;
use indicatif::ProgressBar;
use lines::{Done, Line, Lines, Results};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Many calls.
#[derive(clap::Args)]
#[group(id = "many")]
#[command(next_help_heading = "Batch options")]
pub(crate) struct Arguments {
    /// Run a call for each line of this file: inputs, and an id
    #[arg(long, value_name = "FILE")]
    batch: Option<PathBuf>,
    /// How many run at a time
    #[arg(long, value_name = "N", default_value = "10", requires = "batch", value_parser = concurrency)]
    concurrency: usize,
    /// Write results to this file, a line each [default: standard output]
    #[arg(long, value_name = "FILE", requires = "batch")]
    out: Option<PathBuf>,
    /// Skip calls that have a result in the --out file
    #[arg(long, requires = "out")]
    resume: bool,
}

fn concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "expected a number from 1 to 10000".into())
}

pub(crate) async fn run(
    global: &Global,
    arguments: &Arguments,
    local: Option<Local>,
    network: bool,
) -> Result<Status, CommandError> {
    let path = arguments.batch.as_deref().unwrap_or(Path::new("-"));
    let policy = policy::load(global.policy.as_deref())?;
    let lines = Lines::open(path)?;
    let (results, done) = Results::open(arguments.out.as_deref(), arguments.resume)?;
    let plugins = plugins::plugins(global, arguments.concurrency).await?;
    let handler = first_handler(&plugins)?;
    let mut interrupt = Interrupt::listen()?;
    let pods = backend::open(global, local, network).await?;

    let started = Instant::now();
    let bar = progress::bar(global.quiet, lines.total());
    let runner = Runner::new(plugins, pods.clone(), policy);
    let mut batch = Batch { lines, results, done, runner, handler, bar, completed: 0, errored: 0, skipped: 0 };
    let mut running = JoinSet::new();
    let ended = tokio::select! {
        ended = batch.run(&mut running, arguments.concurrency) => ended,
        () = interrupt.next() => Err(CommandError::interrupted("interrupted")),
    };
    running.shutdown().await;
    batch.bar.finish_and_clear();
    backend::close(&*pods, &mut interrupt).await?;

    let summary = batch.summary(started.elapsed());
    match ended {
        Err(CommandError { status, message }) => {
            let hint = if arguments.out.is_some() { "; go on with --resume" } else { "" };
            Err(CommandError { status, message: format!("{message}\n{summary}{hint}") })
        }
        Ok(()) => {
            global.note(summary);
            Ok(if batch.errored > 0 { Status::Errored } else { Status::Completed })
        }
    }
}

/// A batch that runs: lines in, results out.
struct Batch {
    lines: Lines,
    results: Results,
    done: Done,
    runner: Runner,
    /// App and handler.
    handler: (String, String),
    bar: ProgressBar,
    completed: u64,
    errored: u64,
    skipped: u64,
}

/// The id of a call, and its result.
type Ended = (String, CallResult);

impl Batch {
    /// Keeps this many calls running until there are no more lines, or until something fails that would fail for the next
    /// calls too. Dropping the future loses no result: each is written before the next call is waited for.
    async fn run(&mut self, running: &mut JoinSet<Ended>, concurrency: usize) -> Result<(), CommandError> {
        loop {
            while running.len() < concurrency {
                let Some(Line { id, inputs, .. }) = self.lines.next()? else { break };
                if self.done.contains(&id) {
                    self.skipped += 1;
                    self.bar.set_length(self.lines.total() - self.skipped);
                    continue;
                }
                let (runner, (app, handler)) = (self.runner.clone(), self.handler.clone());
                running.spawn(async move { (id, runner.call(runner.ctx(), &app, &handler, &inputs).await) });
            }
            self.bar.set_message(format!("{} errored, {} running", self.errored, running.len()));
            let Some(ended) = running.join_next().await else { return Ok(()) };
            let (id, result) = ended.map_err(|error| CommandError::errored(format!("a call was aborted: {error}")))?;
            let status = document::status(&result);
            if status == Status::Unavailable {
                // This is the state of the cluster, not the result of the call.
                return Err(CommandError::unavailable(result.document().hops.error.unwrap_or_default()));
            }
            let unwritable = |error| CommandError::errored(format!("cannot write the results: {error}"));
            self.results.write(&id, result.text()).map_err(unwritable)?;
            *if status == Status::Completed { &mut self.completed } else { &mut self.errored } += 1;
            self.bar.inc(1);
        }
    }

    fn summary(&self, time: Duration) -> String {
        let Batch { completed, errored, skipped, .. } = self;
        let (done, all) = (completed + errored, self.lines.total() - skipped);
        let more = if *skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
        let seconds = time.as_secs_f64();
        format!("{done} of {all} calls done in {seconds:.1} s: {completed} completed, {errored} errored{more}")
    }
}
