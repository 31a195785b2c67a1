//! `hops check`: what works, what is missing, and how to fix it.

mod cluster;
mod line;

use crate::exit::{CommandError, Status};
use crate::files::config::{Config, in_home};
use crate::files::policy;
use crate::global::Global;
use crate::interrupt::Interrupt;
use crate::output::progress;
use crate::queue::Queue;
use hops_k8s::pods::Pods;
use hops_k8s::pods::engine::{EngineOptions, EnginePods};
#[cfg(target_os = "linux")]
use hops_k8s::pods::process::{ProcessOptions, ProcessPods};
use line::{Line, State};

/// What to look at.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The namespace that calls will run in
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Run no pod
    #[arg(long)]
    no_pod: bool,
    /// Print a JSON array of objects with check, state, detail and fix (also as mend, until the next release)
    #[arg(long)]
    json: bool,
}

pub(crate) async fn check(global: &Global, config: &Config, arguments: &Arguments) -> Result<Status, CommandError> {
    let spinner = progress::spinner(global.quiet);
    spinner.set_message("checking");
    let (mut lines, answers) = match cluster::connect(global).await {
        Ok(pods) => {
            let mut interrupt = Interrupt::listen()?;
            let found = tokio::select! {
                found = cluster::check(&pods, arguments) => Some(found),
                () = interrupt.next() => None,
            };
            pods.drained().await;
            found.ok_or_else(|| CommandError {
                status: Status::Interrupted,
                message: "interrupted; the pod is deleted".into(),
            })?
        }
        Err(line) => {
            let others = ["cluster", "rules", "pod"];
            let unchecked = others.map(|check| Line::unchecked(check, "no cluster is known"));
            ([line].into_iter().chain(unchecked).collect(), false)
        }
    };
    let (queue, local) = tokio::join!(queue(global, config), local());
    lines.push(policy(global));
    lines.extend(queue);
    lines.extend(local);
    spinner.finish_and_clear();
    line::print(&lines, arguments.json);
    Ok(if !answers {
        Status::Unavailable
    } else if lines.iter().any(|line| line.state == State::Missing) {
        Status::Errored
    } else {
        Status::Completed
    })
}

/// What calls may ask for on this host.
fn policy(global: &Global) -> Line {
    let path = global.policy.as_deref();
    match policy::load(path) {
        Ok(policy) => {
            let file = path.map_or("none".into(), |path| path.display().to_string());
            Line::new("policy", State::Ok, format!("{file}: {policy}"))
        }
        Err(error) => Line::new("policy", State::Missing, error.message).fix("correct the file"),
    }
}

/// What `hops start` needs beside a cluster. Without a key file, nothing is missing for the other commands.
async fn queue(global: &Global, config: &Config) -> Vec<Line> {
    let url = std::env::var("HOPS_NATS_URL").ok();
    let queue = match Queue::find(global, config, url.as_deref(), None) {
        Ok(Some(queue)) => queue,
        Ok(None) => {
            let path = in_home("hiphops.key").unwrap_or_default();
            let fix = format!("put the one that you got from hops at {}, or name it with --keyfile", path.display());
            return vec![Line::new("key file", State::Note, "there is none, and only hops start needs one").fix(fix)];
        }
        Err(error) => return vec![Line::of_sentence("key file", State::Missing, &error)],
    };
    let mut lines = vec![];
    if let Some(path) = &queue.key_file {
        let (path, account) = (path.display(), &queue.account);
        lines.push(if queue.is_open {
            let detail = format!("{path} can be read by other users of this machine");
            Line::new("key file", State::Note, detail).fix(format!("run chmod 600 {path}"))
        } else {
            Line::new("key file", State::Ok, format!("{path}, account {account}"))
        });
    }
    lines.push(match queue.version().await {
        Ok(version) => Line::new("queue", State::Ok, format!("NATS {version} at {}", queue.host)),
        Err(error) => Line::of_sentence("queue", State::Missing, &error),
    });
    lines
}

/// What `hops run --local` finds. Calls in a cluster need none of it.
async fn local() -> [Line; 2] {
    let engine = async {
        match EnginePods::connect(EngineOptions::default()).await {
            Ok(engine) => Line::new("local engine", State::Ok, engine.description()),
            Err(error) => Line::of_sentence("local engine", State::Note, &error.to_string()),
        }
    };
    let process = async {
        match process().await {
            Ok(()) => Line::new("local process", State::Ok, "this machine allows sandboxes"),
            Err(why) => Line::of_sentence("local process", State::Note, &why),
        }
    };
    tokio::join!(engine, process).into()
}

#[cfg(target_os = "linux")]
async fn process() -> Result<(), String> {
    let pods = ProcessPods::new(ProcessOptions::default());
    let allowed = pods.check().await;
    pods.drained().await;
    allowed.map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
async fn process() -> Result<(), String> {
    Err("sandboxes need Linux; use a local engine".into())
}
