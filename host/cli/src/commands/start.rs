//! `hops start`: the worker and the HTTP endpoints, until a signal ends them.

mod service;

use crate::exit::{CommandError, Status};
use crate::files::config::{self, Config};
use crate::global::Global;
use crate::queue::Queue;
use service::{Services, Settings};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The default for calls at a time.
const CONCURRENCY: usize = 1000;
const DRAIN: Duration = Duration::from_secs(20);
const PORT: u16 = 8916;

/// Options of the worker.
#[derive(clap::Args)]
pub(crate) struct WorkerArguments {
    /// Address of the queue, instead of a key file: nats://ACCOUNT:PASSWORD@HOST:4222
    #[arg(long, value_name = "URL", env = "HOPS_NATS_URL", hide_env = true, hide_env_values = true)]
    nats_url: Option<String>,
    /// Account whose requests are served [default: the user in the queue's address]
    #[arg(long, value_name = "ID", env = "HOPS_ACCOUNT", hide_env = true)]
    account: Option<String>,
    /// How many calls run at a time [default: 1000]
    #[arg(long, value_name = "N", env = "HOPS_CONCURRENCY", hide_env = true, value_parser = config::concurrency)]
    concurrency: Option<usize>,
    /// How long calls may go on after the signal to end [default: 20s]
    #[arg(long, value_name = "TIME", env = "HOPS_DRAIN", hide_env = true, value_parser = humantime::parse_duration)]
    drain: Option<Duration>,
    /// How long pods may wait for room that other pods of this process take up [default: 30m]
    #[arg(long, value_name = "TIME", env = "HOPS_MAX_WAIT", hide_env = true, value_parser = humantime::parse_duration)]
    max_wait: Option<Duration>,
}

/// Options of the server. Those of the worker are among them.
#[derive(clap::Args)]
pub(crate) struct ServerArguments {
    #[command(flatten)]
    worker: WorkerArguments,
    /// Address of the HTTP endpoints [default: 127.0.0.1:8916]
    #[arg(long, value_name = "IP:PORT", env = "HOPS_ADDRESS", hide_env = true)]
    address: Option<SocketAddr>,
    /// File with the token that calls over HTTP need [default: HOPS_TOKEN]
    #[arg(long, value_name = "FILE", env = "HOPS_TOKEN_FILE", hide_env = true)]
    token_file: Option<PathBuf>,
}

/// Runs the worker alone.
pub(crate) async fn worker(
    global: &Global,
    arguments: WorkerArguments,
    config: Config,
) -> Result<Status, CommandError> {
    let queue = queue(global, &arguments, &config)?;
    service::run(global, Services { queue: Some(queue), http: None }, Settings::new(&arguments, &config)).await
}

/// Runs the HTTP endpoints, and the worker unless the configuration says `serve: false`.
pub(crate) async fn server(
    global: &Global,
    arguments: ServerArguments,
    config: Config,
) -> Result<Status, CommandError> {
    let is_served = config.serve.unwrap_or(true);
    let queue = if is_served { Some(queue(global, &arguments.worker, &config)?) } else { None };
    let address = arguments.address.or(config.address).unwrap_or_else(|| (Ipv4Addr::LOCALHOST, PORT).into());
    let token = token(arguments.token_file.as_deref(), config.token_file.as_deref())?;
    let services = Services { queue, http: Some((address, token)) };
    service::run(global, services, Settings::new(&arguments.worker, &config)).await
}

impl Settings {
    fn new(arguments: &WorkerArguments, config: &Config) -> Self {
        Settings {
            concurrency: arguments.concurrency.or(config.concurrency).unwrap_or(CONCURRENCY),
            drain: arguments.drain.or(config.drain).unwrap_or(DRAIN),
            max_wait: arguments.max_wait.or(config.max_wait),
        }
    }
}

fn queue(global: &Global, arguments: &WorkerArguments, config: &Config) -> Result<Queue, CommandError> {
    let url = arguments.nats_url.as_deref();
    let found = Queue::find(global, config, url, arguments.account.as_deref()).map_err(CommandError::usage)?;
    let queue = found.ok_or_else(|| {
        let path = config::in_home("hiphops.key").unwrap_or_default();
        CommandError::usage(format!(
            "no queue is known: there is no --nats-url and no key file; put the key file that you got from hops at {}, \
             or name it with --keyfile",
            path.display()
        ))
    })?;
    if let (Some(path), true) = (&queue.key_file, queue.is_open) {
        let path = path.display();
        tracing::warn!("the key file {path} can be read by other users of this machine; run chmod 600 {path}");
    }
    Ok(queue)
}

/// The token for calls over HTTP. There is no flag for it, because other users of the machine can see flags.
fn token(file: Option<&Path>, configured: Option<&Path>) -> Result<Option<String>, CommandError> {
    let set = std::env::var("HOPS_TOKEN").ok().filter(|token| !token.is_empty());
    let path = match (file, set, configured) {
        (Some(path), ..) => path,
        (None, Some(token), _) => return Ok(Some(token)),
        (None, None, Some(path)) => path,
        (None, None, None) => return Ok(None),
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| CommandError::usage(format!("the token file {} cannot be read: {error}", path.display())))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(CommandError::usage(format!("the token file {} is empty; write a token into it", path.display())));
    }
    Ok(Some(token.into()))
}
