//! `hops start`: a service that lives until it is told to end.

use crate::backend;
use crate::exit::{CommandError, Status};
use crate::files::config::{self, Config};
use crate::files::policy;
use crate::global::Global;
use crate::interrupt::Interrupt;
use crate::plugins;
use crate::queue::Queue;
use crate::reload::Reload;
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s::runner::Runner;
use hops_k8s::serve::http::{BindError, Server, ServerOptions};
use hops_k8s::serve::metrics::Metrics;
use hops_k8s::serve::worker::{QueueError, Worker, WorkerOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The calls at a time unless something else is said.
const CONCURRENCY: usize = 1000;
const DRAIN: Duration = Duration::from_secs(20);
const PORT: u16 = 8916;

/// What the worker serves, and how.
#[derive(clap::Args)]
pub(crate) struct WorkerArguments {
    /// The queue's address, instead of the key file: nats://ACCOUNT:PASSWORD@HOST:4222
    #[arg(long, value_name = "URL", env = "HOPS_NATS_URL", hide_env = true, hide_env_values = true)]
    nats_url: Option<String>,
    /// The account whose requests are served [default: the user in the queue's address]
    #[arg(long, value_name = "ID", env = "HOPS_ACCOUNT", hide_env = true)]
    account: Option<String>,
    /// How many calls run at a time [default: 1000]
    #[arg(long, value_name = "N", env = "HOPS_CONCURRENCY", hide_env = true, value_parser = config::concurrency)]
    concurrency: Option<usize>,
    /// How long calls may go on after the signal to end [default: 20s]
    #[arg(long, value_name = "TIME", env = "HOPS_DRAIN", hide_env = true, value_parser = humantime::parse_duration)]
    drain: Option<Duration>,
    /// How long pods may wait for the room that others of ours take up [default: 30m]
    #[arg(long, value_name = "TIME", env = "HOPS_MAX_WAIT", hide_env = true, value_parser = humantime::parse_duration)]
    max_wait: Option<Duration>,
}

/// What the server serves beside the worker.
#[derive(clap::Args)]
pub(crate) struct ServerArguments {
    #[command(flatten)]
    worker: WorkerArguments,
    /// Where the HTTP endpoints are [default: 127.0.0.1:8916]
    #[arg(long, value_name = "IP:PORT", env = "HOPS_ADDRESS", hide_env = true)]
    address: Option<SocketAddr>,
    /// A file with the token that calls over HTTP need [default: HOPS_TOKEN]
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
    start(global, Services { queue: Some(queue), http: None }, &arguments, &config).await
}

/// Runs the HTTP endpoints, and the worker unless the configuration says that it is not served here.
pub(crate) async fn server(
    global: &Global,
    arguments: ServerArguments,
    config: Config,
) -> Result<Status, CommandError> {
    let is_served = config.serve.unwrap_or(true);
    let queue = if is_served { Some(queue(global, &arguments.worker, &config)?) } else { None };
    let address = arguments.address.or(config.address).unwrap_or_else(|| (Ipv4Addr::LOCALHOST, PORT).into());
    let token = token(arguments.token_file.as_deref(), config.token_file.as_deref())?;
    start(global, Services { queue, http: Some((address, token)) }, &arguments.worker, &config).await
}

/// What is to run.
struct Services {
    queue: Option<Queue>,
    /// Where, and with which token.
    http: Option<(SocketAddr, Option<String>)>,
}

fn queue(global: &Global, arguments: &WorkerArguments, config: &Config) -> Result<Queue, CommandError> {
    let url = arguments.nats_url.as_deref();
    let found = Queue::find(global, config, url, arguments.account.as_deref()).map_err(CommandError::usage)?;
    let queue = found.ok_or_else(|| {
        let place = config::in_home("hiphops.key").unwrap_or_default();
        CommandError::usage(format!(
            "no queue is known: there is no --nats-url and no key file; put the key file that you got from hops at {}, \
             or name it with --keyfile",
            place.display()
        ))
    })?;
    if let (Some(path), true) = (&queue.key_file, queue.is_open) {
        let path = path.display();
        tracing::warn!("the key file {path} can be read by other users of this machine; run chmod 600 {path}");
    }
    Ok(queue)
}

/// The token for calls over HTTP. It is no flag, since others can see those.
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

async fn start(
    global: &Global,
    services: Services,
    arguments: &WorkerArguments,
    config: &Config,
) -> Result<Status, CommandError> {
    let concurrency = arguments.concurrency.or(config.concurrency).unwrap_or(CONCURRENCY);
    let drain = arguments.drain.or(config.drain).unwrap_or(DRAIN);
    let mut interrupt = Interrupt::listen()?;
    let hangups = Interrupt::hangups()?;
    let mut options = global.kube_options();
    options.max_wait = arguments.max_wait.or(config.max_wait).unwrap_or(options.max_wait);
    let starting = connect(global, options, services, concurrency, drain);
    let running = tokio::select! {
        running = starting => running?,
        is_terminate = interrupt.next_is_terminate() => return ended(is_terminate),
    };
    running.run(global, &mut interrupt, hangups, drain).await
}

/// The services, ready to run.
struct Running {
    reload: Reload,
    pods: Arc<KubePods>,
    worker: Option<Arc<Worker>>,
    server: Option<Server>,
}

async fn connect(
    global: &Global,
    mut options: KubeOptions,
    services: Services,
    concurrency: usize,
    drain: Duration,
) -> Result<Running, CommandError> {
    let Services { queue, http } = services;
    let policy = policy::load(global.policy.as_deref())?;
    // The worker takes requests whatever runs over HTTP.
    let calls = if queue.is_some() && http.is_some() { concurrency.saturating_mul(2) } else { concurrency };
    let component = plugins::component(global.plugin.as_deref())?;
    let plugins = plugins::plugins_of(global, &component, calls).await?;
    let metrics = Arc::new(Metrics::default());
    options.observer = Some(metrics.clone());
    let pods = Arc::new(KubePods::connect(options).await.map_err(backend::no_cluster)?);
    tell(global, &pods, queue.as_ref(), concurrency, drain);
    pods.version().await.map_err(CommandError::unavailable)?;
    let reload = Reload::new(Runner::new(plugins, pods.clone(), policy), component, calls);

    let worker = match queue {
        None => None,
        Some(queue) => {
            let mut options = WorkerOptions::new(queue.url, queue.account);
            (options.concurrency, options.drain) = (concurrency, drain);
            let worker =
                Worker::connect(options, reload.runners(), metrics.clone()).await.map_err(|error| match error {
                    QueueError::Address(_) => CommandError::usage(error),
                    _ => CommandError::unavailable(error),
                })?;
            Some(Arc::new(worker))
        }
    };
    let server = match http {
        None => None,
        Some((address, token)) => {
            let mut options = ServerOptions::new(reload.runners(), metrics);
            options.concurrency = concurrency;
            Some(server_at(address, token.as_deref(), options, &pods, worker.as_ref()).await?)
        }
    };
    Ok(Running { reload, pods, worker, server })
}

/// The first line of the log. It holds no secrets.
fn tell(global: &Global, pods: &KubePods, queue: Option<&Queue>, concurrency: usize, drain: Duration) {
    let source = pods.source();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        account = queue.map_or("none", |queue| &queue.account),
        queue = queue.map_or("none", |queue| &queue.host),
        cluster = pods.address().unwrap_or_default(),
        credentials = source.origin,
        context = source.context.as_deref().unwrap_or("none"),
        fetch = if pods.forwards_ports() { "port-forward" } else { "pod address" },
        policy = global.policy.as_ref().map_or("none".into(), |path| path.display().to_string()),
        concurrency,
        drain = %humantime::format_duration(drain),
        "hops starts"
    );
}

async fn server_at(
    address: SocketAddr,
    token: Option<&str>,
    options: ServerOptions,
    pods: &Arc<KubePods>,
    worker: Option<&Arc<Worker>>,
) -> Result<Server, CommandError> {
    let mut server = Server::bind(address, token, options).await.map_err(|error| {
        let remedy = match &error {
            BindError::NoToken(_) => "set HOPS_TOKEN or --token-file, or choose another --address",
            _ => "choose another with --address",
        };
        CommandError::usage(format!("{error}: {remedy}"))
    })?;
    if let Some(worker) = worker.cloned() {
        server = server.check("queue", move || {
            let answer = if worker.is_connected() { Ok(()) } else { Err("the queue does not answer".to_owned()) };
            std::future::ready(answer)
        });
    }
    let pods = pods.clone();
    let server = server.check("cluster", move || {
        let pods = pods.clone();
        async move { pods.version().await.map(drop).map_err(|error| error.to_string()) }
    });
    tracing::info!(address = %server.address(), token = token.is_some(), "the HTTP endpoints are up");
    Ok(server)
}

impl Running {
    /// Runs until the signals say otherwise: the first lets calls end, the second does not.
    async fn run(
        self,
        global: &Global,
        interrupt: &mut Interrupt,
        mut hangups: Signal,
        drain: Duration,
    ) -> Result<Status, CommandError> {
        let Running { mut reload, pods, worker, server } = self;
        let stop = CancellationToken::new();
        let mut services = JoinSet::new();
        if let Some(worker) = worker.clone() {
            let stop = stop.clone();
            services.spawn(async move {
                worker.run(stop).await;
                Ok(())
            });
        }
        if let Some(server) = server {
            services.spawn(server.run(stop.clone(), drain));
        }
        let mut result = Ok(Status::Completed);
        loop {
            tokio::select! {
                is_terminate = interrupt.next_is_terminate() => {
                    if stop.is_cancelled() {
                        if let Some(worker) = &worker {
                            worker.stop_now();
                        }
                        let message = "interrupted again: calls are left with their pods running".into();
                        return Err(CommandError { status: Status::Interrupted, message });
                    }
                    tracing::info!(drain = %humantime::format_duration(drain), "ending: taking nothing new");
                    result = ended(is_terminate);
                    stop.cancel();
                }
                Some(()) = hangups.recv() => reload.reload(global).await,
                ended = services.join_next() => match ended {
                    None => break,
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => {
                        result = Err(CommandError::unavailable(format!("the HTTP endpoints have ended: {error}")));
                        stop.cancel();
                    }
                    Some(Err(error)) => {
                        result = Err(CommandError { status: Status::Errored, message: error.to_string() });
                        stop.cancel();
                    }
                },
            }
        }
        backend::close(&*pods, interrupt).await?;
        tracing::info!("ended");
        result
    }
}

fn ended(is_terminate: bool) -> Result<Status, CommandError> {
    if is_terminate {
        return Ok(Status::Completed);
    }
    Err(CommandError { status: Status::Interrupted, message: "interrupted".into() })
}
