//! `hops run --batch`: a call for each line of a file, results as they end.

mod lines;

use super::backend::Local;
use super::document::Document;
use super::interrupt::Interrupt;
use super::{Failure, Global, Status, backend, policy, progress};
use hops_k8s::app::App;
use indicatif::ProgressBar;
use lines::{Done, Line, Lines, Results};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What to run, when it is many.
#[derive(clap::Args)]
#[group(id = "many")]
#[command(next_help_heading = "Batch options")]
pub(super) struct Arguments {
    /// Run a call for each line: the inputs of k8s_run, and an id if it has one
    #[arg(long, value_name = "FILE")]
    batch: Option<PathBuf>,
    /// How many run at a time
    #[arg(long, value_name = "N", default_value = "10", requires = "batch", value_parser = concurrency)]
    concurrency: usize,
    /// Where results go, a line each [default: standard output]
    #[arg(long, value_name = "FILE", requires = "batch")]
    out: Option<PathBuf>,
    /// Leave out what the --out file has a result for
    #[arg(long, requires = "out")]
    resume: bool,
}

fn concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "expected a number from 1 to 10000".into())
}

pub(super) async fn run(global: &Global, arguments: &Arguments, local: Option<Local>) -> Result<Status, Failure> {
    let path = arguments.batch.as_deref().unwrap_or(Path::new("-"));
    let policy = policy::load(global.policy.as_deref())?;
    let lines = Lines::open(path)?;
    let (results, done) = Results::open(arguments.out.as_deref(), arguments.resume)?;
    let plugin = Arc::new(super::plugin(global, arguments.concurrency)?);
    let handler = plugin.describe().await.map_err(Failure::usage)?.handlers.first();
    let handler = handler.ok_or_else(|| Failure::usage("the plugin has no handlers"))?.name.clone();
    let mut interrupt = Interrupt::listen()?;
    let pods = backend::open(global, local).await?;

    let started = Instant::now();
    let bar = progress::bar(global.quiet, lines.total());
    let app = App::new(plugin, pods.clone(), policy);
    let mut batch = Batch { lines, results, done, app, handler, bar, completed: 0, errored: 0, skipped: 0 };
    let mut running = JoinSet::new();
    let ended = tokio::select! {
        ended = batch.run(&mut running, arguments.concurrency) => ended,
        () = interrupt.next() => Err(Failure { status: Status::Interrupted, message: "interrupted".into() }),
    };
    running.shutdown().await;
    batch.bar.finish_and_clear();
    backend::close(&*pods, &mut interrupt).await?;

    let summary = batch.summary(started.elapsed());
    match ended {
        Err(Failure { status, message }) => {
            let hint = if arguments.out.is_some() { "; go on with --resume" } else { "" };
            Err(Failure { status, message: format!("{message}\n{summary}{hint}") })
        }
        Ok(()) => {
            global.tell(summary);
            Ok(if batch.errored > 0 { Status::Errored } else { Status::Completed })
        }
    }
}

/// The calls of a batch on their way from lines to results.
struct Batch {
    lines: Lines,
    results: Results,
    done: Done,
    app: App,
    handler: String,
    bar: ProgressBar,
    completed: u64,
    errored: u64,
    skipped: u64,
}

/// The id of a call and its result document.
type Ended = (String, String);

impl Batch {
    /// Keeps so many calls running until there are no more lines, or until something is wrong that the next calls would
    /// meet too. Dropping it loses no result: a line is written when its call has ended, and not before.
    async fn run(&mut self, running: &mut JoinSet<Ended>, concurrency: usize) -> Result<(), Failure> {
        loop {
            while running.len() < concurrency {
                let Some(Line { id, inputs, .. }) = self.lines.next()? else { break };
                if self.done.contains(&id) {
                    self.skipped += 1;
                    self.bar.set_length(self.lines.total() - self.skipped);
                    continue;
                }
                let (app, handler) = (self.app.clone(), self.handler.clone());
                running.spawn(async move { (id, app.call(app.ctx(), &handler, &inputs).await.document) });
            }
            self.bar.set_message(format!("{} errored, {} running", self.errored, running.len()));
            let Some(ended) = running.join_next().await else { return Ok(()) };
            let (id, text) = ended.map_err(|error| Failure::usage(format!("a call was broken off: {error}")))?;
            let document = Document::parse(&text)?;
            if document.status() == Status::Unavailable {
                // Not a result of this call but the state of the cluster.
                return Err(Failure::unavailable(document.error()));
            }
            self.results.write(&id, &text).map_err(|error| Failure {
                status: Status::Errored,
                message: format!("cannot write the results: {error}"),
            })?;
            *if document.status() == Status::Completed { &mut self.completed } else { &mut self.errored } += 1;
            self.bar.inc(1);
        }
    }

    fn summary(&self, time: Duration) -> String {
        let Batch { completed, errored, skipped, .. } = self;
        let (done, all) = (completed + errored, self.lines.total() - skipped);
        let more = if *skipped > 0 { format!(", {skipped} had a result before") } else { String::new() };
        let seconds = time.as_secs_f64();
        format!("{done} of {all} calls done in {seconds:.1} s: {completed} completed, {errored} errored{more}")
    }
}
