//! Which cluster it is, and how its pods are reached.

use super::api::{ApiServer, ObserveRequests};
use super::body::{Bound, Bounded};
use super::fetch::Route;
use super::room::Room;
use super::watch::Watch;
use super::{Inner, KubePods};
use crate::pods::causes::chain;
use hyper::Request;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::env;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tower::{BoxError, ServiceBuilder};

/// How long an idle connection is kept. This is shorter than one try of a request: if all connections have died
/// unnoticed, the second try opens a new one.
const IDLE: Duration = Duration::from_secs(10);

/// Which cluster, and what its pods contain beside the user's container.
///
/// ```
/// # use hops_k8s::pods::kube::KubeOptions;
/// let mut options = KubeOptions::default();
/// options.context = Some("staging".into());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KubeOptions {
    /// A kubeconfig file. `None`: `KUBECONFIG`, then `~/.kube/config`, then the service account of the pod that this
    /// process runs in. [`KubePods::new`] and [`KubePods::from_config`] ignore it.
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig. `None`: its current one. Ignored like `kubeconfig`.
    pub context: Option<String>,
    /// Read files from pods through the API server, not from the pods' own addresses.
    pub port_forward: bool,
    /// How long requests are tried again while the API server is out of reach or overloaded.
    pub patience: Duration,
    /// How long a pod may wait for room that other pods of this process take up.
    pub max_wait: Duration,
    /// Hears of requests to the API server.
    pub observer: Option<Arc<dyn ObserveRequests>>,
    /// The image of the result server.
    pub server_image: String,
    /// The port of the result server.
    pub server_port: u16,
    /// The result server's CPU: request and limit, Kubernetes quantities.
    pub server_cpu: (String, String),
    /// The result server's memory: request and limit, Kubernetes quantities.
    pub server_memory: (String, String),
}

impl Default for KubeOptions {
    fn default() -> Self {
        let pair = |request: &str, limit: &str| (request.to_owned(), limit.to_owned());
        KubeOptions {
            kubeconfig: None,
            context: None,
            port_forward: false,
            patience: Duration::from_secs(30),
            max_wait: Duration::from_secs(30 * 60),
            observer: None,
            server_image: "halverneus/static-file-server:v1.8.10".into(),
            server_port: 8917,
            server_cpu: pair("10m", "100m"),
            server_memory: pair("16Mi", "64Mi"),
        }
    }
}

/// Where the address of a cluster and the credentials for it come from. It contains no secrets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Source {
    /// `the kubeconfig FILE`, `the service account` or `the embedding program`.
    pub origin: String,
    /// The context in the kubeconfig.
    pub context: Option<String>,
    /// The kubeconfig's name for the user. The cluster may know this user by another name.
    pub user: Option<String>,
}

impl Source {
    fn new(origin: &str) -> Self {
        Source { origin: origin.into(), context: None, user: None }
    }

    fn is_kubeconfig(&self) -> bool {
        self.context.is_some()
    }
}

/// Why no cluster can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("{origin} cannot be used: {why}")]
    Kubeconfig {
        /// `the kubeconfig FILE`.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no kubeconfig, and this process does not run in a cluster.
    #[error(
        "no cluster is known: KUBECONFIG is not set, there is no ~/.kube/config, and this is not a pod in a cluster"
    )]
    None,
    /// This process runs in a pod, but the pod's service account cannot be used.
    #[error("this is a pod in a cluster, but its service account cannot be used: {0}")]
    ServiceAccount(String),
    /// The configuration that the embedding program gave cannot be used.
    #[error("the configuration of the cluster cannot be used: {0}")]
    Config(String),
}

impl KubePods {
    /// Finds the cluster. No request is sent.
    ///
    /// Files are read from the pods' own addresses if this process runs in the cluster, and through the API server if a
    /// kubeconfig names the cluster.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub async fn connect(options: KubeOptions) -> Result<Self, ConnectError> {
        let (config, source) = find(&options).await?;
        let port_forward = options.port_forward || source.is_kubeconfig();
        Self::with_found(config, source, KubeOptions { port_forward, ..options })
    }

    /// Finds the cluster, and reads files from the pods' own addresses. For programs that can reach these, as on a node
    /// of the cluster.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub async fn connect_by_pod_ip(options: KubeOptions) -> Result<Self, ConnectError> {
        let (config, source) = find(&options).await?;
        Self::with_found(config, source, KubeOptions { port_forward: false, ..options })
    }

    /// The cluster of this configuration. No request is sent.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn from_config(config: Config, options: KubeOptions) -> Result<Self, ConnectError> {
        let source = Source::new("the embedding program");
        Self::with_config(config, source, options).map_err(ConnectError::Config)
    }

    /// The cluster that this client talks to.
    ///
    /// Build the client with `Config::default_retry` off. Requests are tried again here, as `Retry-After` and
    /// [`KubeOptions::patience`] say; a client that tries again by itself hides the answers. Its connections should set
    /// `TCP_NODELAY`, or the first request of each takes up to 40 ms longer. [`KubePods::from_config`] does both, except
    /// that through a proxy it leaves `TCP_NODELAY` off.
    ///
    /// No message can name the address of the API server, because a client does not tell it.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(client: Client, options: KubeOptions) -> Self {
        Self::with_client(client, None, Source::new("the embedding program"), options)
    }

    fn with_found(config: Config, source: Source, options: KubeOptions) -> Result<Self, ConnectError> {
        Self::with_config(config, source.clone(), options).map_err(|why| {
            if source.is_kubeconfig() {
                ConnectError::Kubeconfig { origin: source.origin, why }
            } else {
                ConnectError::ServiceAccount(why)
            }
        })
    }

    fn with_config(config: Config, source: Source, options: KubeOptions) -> Result<Self, String> {
        let address = config.cluster_url.to_string();
        let program = config.auth_info.exec.as_ref().and_then(|exec| exec.command.clone());
        let client = client(config).map_err(|error| match (&error, program) {
            // The error does not name the program.
            (kube::Error::Auth(_), Some(program)) => format!("{program}, for credentials: {}", chain(&error)),
            _ => chain(&error),
        })?;
        Ok(Self::with_client(client, Some(address), source, options))
    }

    fn with_client(client: Client, address: Option<String>, source: Source, options: KubeOptions) -> Self {
        let server = Arc::new(ApiServer::new(address, options.patience, options.observer.clone()));
        let client = guarded(client, server.clone());
        KubePods {
            inner: Arc::new(Inner {
                watch: Watch::new(client.clone(), server.clone()),
                client,
                server,
                source,
                route: if options.port_forward { Route::PortForward } else { Route::PodIp },
                options,
                room: Room::default(),
                restricted: Mutex::default(),
                tasks: TaskTracker::new(),
                runtime: Handle::current(),
            }),
        }
    }
}

/// The client that kube-rs would build, except that its connections send small requests at once. With Nagle's algorithm,
/// the first request of each connection waits 40 ms for the server to acknowledge the end of the TLS handshake.
fn client(mut config: Config) -> kube::Result<Client> {
    config.headers.push((USER_AGENT, HeaderValue::from_static(concat!("hops-k8s/", env!("CARGO_PKG_VERSION")))));
    if config.proxy_url.is_some() {
        // Its retries would hide the answers from ours.
        config.default_retry = false;
        return Client::try_from(config);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(config.connect_timeout);
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(
            hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build(connector),
        );
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// The same client, but responses are bounded, and `server` hears of each `Retry-After`.
fn guarded(client: Client, server: Arc<ApiServer>) -> Client {
    let (namespace, valid_until) = (client.default_namespace().to_owned(), *client.valid_until());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, server) = (client.clone(), server.clone());
        let bound = Bound::of(request.uri());
        async move {
            let response = client.send(request).await?;
            server.note_retry_after(&response);
            let bound = bound.with(response.status());
            Ok::<_, kube::Error>(response.map(|body| Bounded::new(body, bound)))
        }
    });
    Client::new(service, namespace).with_valid_until(valid_until)
}

async fn find(options: &KubeOptions) -> Result<(Config, Source), ConnectError> {
    let set = env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty());
    if let Some(path) = &options.kubeconfig {
        let origin = format!("the kubeconfig {}", path.display());
        from_kubeconfig(origin, Kubeconfig::read_from(path), options).await
    } else if let Some(paths) = set {
        let origin = format!("the kubeconfig {} (from KUBECONFIG)", paths.display());
        from_kubeconfig(origin, Kubeconfig::read(), options).await
    } else if env::home_dir().is_some_and(|home| home.join(".kube/config").exists()) {
        from_kubeconfig("the kubeconfig ~/.kube/config".into(), Kubeconfig::read(), options).await
    } else if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        let config = Config::incluster().map_err(|error| ConnectError::ServiceAccount(chain(&error)))?;
        Ok((config, Source::new("the service account")))
    } else {
        Err(ConnectError::None)
    }
}

async fn from_kubeconfig(
    origin: String,
    file: Result<Kubeconfig, KubeconfigError>,
    options: &KubeOptions,
) -> Result<(Config, Source), ConnectError> {
    let unusable = |error: KubeconfigError| ConnectError::Kubeconfig { origin: origin.clone(), why: chain(&error) };
    let file = file.map_err(unusable)?;
    let context = options.context.clone().or_else(|| file.current_context.clone()).unwrap_or_default();
    let named = file.contexts.iter().find(|named| named.name == context);
    let user = named.and_then(|named| named.context.as_ref()?.user.clone());
    let choice = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(file, &choice).await.map_err(unusable)?;
    Ok((config, Source { origin, context: Some(context), user }))
}
