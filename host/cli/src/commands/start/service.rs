//! The services of one process: connected once, and run until a signal ends them.

use crate::backend;
use crate::exit::{CommandError, Status};
use crate::files::policy;
use crate::global::Global;
use crate::interrupt::Interrupt;
use crate::plugins;
use crate::queue::Queue;
use crate::reload::Reload;
use hops_k8s::pods::kube::KubePods;
use hops_k8s::runner::Runner;
use hops_k8s::serve::http::{BindError, Server, ServerOptions};
use hops_k8s::serve::metrics::Metrics;
use hops_k8s::serve::worker::{QueueError, Worker, WorkerOptions};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What to run.
pub(super) struct Services {
    pub queue: Option<Queue>,
    /// The address and the token.
    pub http: Option<(SocketAddr, Option<String>)>,
}

/// How to run it.
pub(super) struct Settings {
    pub concurrency: usize,
    pub drain: Duration,
    pub max_wait: Option<Duration>,
}

/// Runs the services until a signal ends them.
pub(super) async fn run(global: &Global, services: Services, settings: Settings) -> Result<Status, CommandError> {
    let mut interrupt = Interrupt::listen()?;
    let hangups = Interrupt::hangups()?;
    let connected = tokio::select! {
        connected = Connected::connect(global, services, &settings) => connected?,
        is_terminate = interrupt.next_is_terminate() => return ended(is_terminate),
    };
    connected.run(global, &mut interrupt, hangups, settings.drain).await
}

/// The services, ready to run.
struct Connected {
    reload: Reload,
    pods: Arc<KubePods>,
    worker: Option<Arc<Worker>>,
    server: Option<Server>,
}

impl Connected {
    async fn connect(global: &Global, services: Services, settings: &Settings) -> Result<Self, CommandError> {
        let Services { queue, http } = services;
        let policy = policy::load(global.policy.as_deref())?;
        let component = plugins::component(global.plugin.as_deref())?;
        // The worker and the HTTP endpoints each run this many calls, whatever the other does.
        let calls = settings.concurrency.saturating_mul(if queue.is_some() && http.is_some() { 2 } else { 1 });
        let plugins = plugins::plugins_of(global, &component, calls).await?;
        let metrics = Arc::new(Metrics::default());
        let pods = connect_cluster(global, settings, &metrics, queue.as_ref()).await?;
        let reload = Reload::new(Runner::new(plugins, pods.clone(), policy), component, calls);
        let worker = match queue {
            Some(queue) => Some(connect_worker(queue, settings, &reload, &metrics).await?),
            None => None,
        };
        let server = match http {
            Some((address, token)) => {
                let mut options = ServerOptions::new(reload.runners(), metrics);
                options.concurrency = settings.concurrency;
                Some(bind_server(address, token.as_deref(), options, &pods, worker.as_ref()).await?)
            }
            None => None,
        };
        Ok(Connected { reload, pods, worker, server })
    }
}

/// Connects to the cluster, and writes the first line of the log.
async fn connect_cluster(
    global: &Global,
    settings: &Settings,
    metrics: &Arc<Metrics>,
    queue: Option<&Queue>,
) -> Result<Arc<KubePods>, CommandError> {
    let mut options = global.kube_options();
    options.max_wait = settings.max_wait.unwrap_or(options.max_wait);
    options.observer = Some(metrics.clone());
    let pods = KubePods::connect(options).await.map_err(backend::no_cluster)?;
    log_start(global, settings, &pods, queue);
    pods.version().await.map_err(CommandError::unavailable)?;
    Ok(Arc::new(pods))
}

/// Logs how this process was started, without secrets.
fn log_start(global: &Global, settings: &Settings, pods: &KubePods, queue: Option<&Queue>) {
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
        concurrency = settings.concurrency,
        drain = %humantime::format_duration(settings.drain),
        "hops starts"
    );
}

async fn connect_worker(
    queue: Queue,
    settings: &Settings,
    reload: &Reload,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Worker>, CommandError> {
    let mut options = WorkerOptions::new(queue.url, queue.account);
    (options.concurrency, options.drain) = (settings.concurrency, settings.drain);
    let worker = Worker::connect(options, reload.runners(), metrics.clone()).await.map_err(|error| no_queue(&error))?;
    Ok(Arc::new(worker))
}

/// Why there is no queue to serve, and what to do about it.
fn no_queue(error: &QueueError) -> CommandError {
    let remedy = match error {
        QueueError::Address(_) => "give it the form nats://ACCOUNT:PASSWORD@HOST:4222",
        QueueError::Silent { .. } => "check that it runs and that this is its address",
        QueueError::Refused { .. } => "check the key file, or the account and the password in the address",
        QueueError::NoStream { .. } => "start the hub of hops, which creates it, or check the account",
        _ => "check that it has JetStream for this account",
    };
    let sentence = error.to_string();
    // Some sentences end with a remedy of their own.
    let message = if sentence.contains("; ") { sentence } else { format!("{sentence}; {remedy}") };
    match error {
        QueueError::Address(_) => CommandError::usage(message),
        _ => CommandError::unavailable(message),
    }
}

async fn bind_server(
    address: SocketAddr,
    token: Option<&str>,
    options: ServerOptions,
    pods: &Arc<KubePods>,
    worker: Option<&Arc<Worker>>,
) -> Result<Server, CommandError> {
    let mut server = Server::bind(address, token, options).await.map_err(|error| no_server(&error))?;
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

/// Why there are no HTTP endpoints, and what to do about it.
fn no_server(error: &BindError) -> CommandError {
    let remedy = match error {
        BindError::NoToken(_) => "set HOPS_TOKEN or --token-file, or choose another --address",
        _ => "choose another address with --address",
    };
    CommandError::usage(format!("{error}; {remedy}"))
}

impl Connected {
    /// Runs until the signals end it: after the first, calls may end; the second ends the process at once.
    async fn run(
        self,
        global: &Global,
        interrupt: &mut Interrupt,
        mut hangups: Signal,
        drain: Duration,
    ) -> Result<Status, CommandError> {
        let Connected { mut reload, pods, worker, server } = self;
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
                        let message = "interrupted again: calls are left with their pods running";
                        return Err(CommandError::interrupted(message));
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
                        result = Err(CommandError::errored(error));
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
    if is_terminate { Ok(Status::Completed) } else { Err(CommandError::interrupted("interrupted")) }
}
