//! Finding the cluster, and how to reach its pods.

use super::api::ApiServer;
use super::fetch::Route;
use super::room::Room;
use super::watch::Watch;
use super::{Inner, KubePods};
use crate::pods::causes::chain;
use crate::serve::metrics::Metrics;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fmt};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tower::{BoxError, ServiceBuilder};

/// How long a connection is kept for the next request. That is less than a try of a request takes at most: if all
/// connections have died in silence, the second try is not made on another one of them.
const IDLE: Duration = Duration::from_secs(10);

/// Which cluster, and what its pods consist of beside the user's container.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KubeOptions {
    /// A kubeconfig file. None: `KUBECONFIG`, then `~/.kube/config`, then the service account of the pod we are in.
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig. None: its current one.
    pub context: Option<String>,
    /// Reach pods through the API server even from inside the cluster.
    pub port_forward: bool,
    /// How long requests are tried again while the API server is out of reach or overloaded.
    pub patience: Duration,
    /// How long a pod may wait for the room that other pods of this process take up.
    pub max_wait: Duration,
    /// Where requests to the API server are counted.
    pub metrics: Arc<Metrics>,
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
            metrics: Arc::default(),
            server_image: "halverneus/static-file-server:v1.8.10".into(),
            server_port: 8917,
            server_cpu: pair("10m", "100m"),
            server_memory: pair("16Mi", "64Mi"),
        }
    }
}

/// Where the address of a cluster and the credentials for it come from. It holds no secrets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Source {
    /// `the kubeconfig FILE`, or `the service account`.
    pub origin: String,
    /// The context in the kubeconfig.
    pub context: Option<String>,
    /// The context's name for the user, which need not be the cluster's.
    pub user: Option<String>,
}

/// Why there is no cluster to talk to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("{origin} cannot be used: {why}; give another with --kubeconfig, or another context with --context")]
    Kubeconfig {
        /// Where the kubeconfig is.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is neither a kubeconfig nor a cluster around us.
    #[error(
        "no cluster: there is no --kubeconfig, no KUBECONFIG and no ~/.kube/config, and this is not a pod in a cluster; \
         give a kubeconfig file with --kubeconfig"
    )]
    None,
    /// The service account of the pod we are in cannot be used.
    #[error(
        "this is a pod in a cluster, but its service account cannot be used: {0}; mount its token, or give a --kubeconfig"
    )]
    ServiceAccount(String),
}

impl KubePods {
    /// Finds the cluster. No request is sent.
    ///
    /// # Errors
    /// There is none, or not as asked for.
    pub async fn connect(options: KubeOptions) -> Result<Self, ConnectError> {
        let (config, source) = config(&options).await?;
        let is_kubeconfig = source.context.is_some();
        let route = if is_kubeconfig || options.port_forward { Route::PortForward } else { Route::PodIp };
        Self::with_config(config, source, route, options)
    }

    /// The cluster, with pods reached by their own addresses. For programs that know these to be routed, as from a
    /// node of the cluster.
    ///
    /// # Errors
    /// There is no cluster, or not as asked for.
    pub async fn connect_by_pod_ip(options: KubeOptions) -> Result<Self, ConnectError> {
        let (config, source) = config(&options).await?;
        Self::with_config(config, source, Route::PodIp, options)
    }

    fn with_config(config: Config, source: Source, route: Route, options: KubeOptions) -> Result<Self, ConnectError> {
        let server =
            Arc::new(ApiServer::new(config.cluster_url.to_string(), options.patience, options.metrics.clone()));
        let program = config.auth_info.exec.as_ref().and_then(|exec| exec.command.clone());
        let client = client(config, server.clone()).map_err(|error| {
            let why = match (&error, program) {
                // The error does not name it.
                (kube::Error::Auth(_), Some(program)) => format!("{program}, for credentials: {}", chain(&error)),
                _ => chain(&error),
            };
            ConnectError::Kubeconfig { origin: source.origin.clone(), why }
        })?;
        Ok(KubePods {
            inner: Arc::new(Inner {
                watch: Watch::new(client.clone(), server.clone()),
                client,
                server,
                source,
                options,
                route,
                room: Room::default(),
                restricted: Mutex::default(),
                tasks: TaskTracker::new(),
                runtime: Handle::current(),
            }),
        })
    }
}

/// What kube-rs would build, but with connections that send small requests at once: with Nagle's algorithm, the first
/// request of each waits 40 ms for the server to acknowledge the end of the TLS handshake.
fn client(mut config: Config, server: Arc<ApiServer>) -> kube::Result<Client> {
    config.headers.push((USER_AGENT, HeaderValue::from_static(concat!("hops-k8s/", env!("CARGO_PKG_VERSION")))));
    if config.proxy_url.is_some() {
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
        .map_response(move |response| {
            server.heed(&response);
            response
        })
        .map_err(BoxError::from)
        .service(
            hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build(connector),
        );
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// Where the configuration comes from.
enum Origin {
    File(PathBuf),
    Environment(OsString),
    Home,
    ServiceAccount,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "the kubeconfig {}", path.display()),
            Origin::Environment(paths) => write!(f, "the kubeconfig {} (from KUBECONFIG)", paths.display()),
            Origin::Home => f.write_str("the kubeconfig ~/.kube/config"),
            Origin::ServiceAccount => f.write_str("the service account"),
        }
    }
}

async fn config(options: &KubeOptions) -> Result<(Config, Source), ConnectError> {
    let origin = if let Some(path) = &options.kubeconfig {
        Origin::File(path.clone())
    } else if let Some(paths) = env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
        Origin::Environment(paths)
    } else if env::home_dir().is_some_and(|home| home.join(".kube/config").exists()) {
        Origin::Home
    } else if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Origin::ServiceAccount
    } else {
        return Err(ConnectError::None);
    };
    let file = match &origin {
        Origin::ServiceAccount => {
            let config = Config::incluster().map_err(|error| ConnectError::ServiceAccount(chain(&error)))?;
            return Ok((config, Source { origin: origin.to_string(), context: None, user: None }));
        }
        Origin::File(path) => Kubeconfig::read_from(path),
        Origin::Environment(_) | Origin::Home => Kubeconfig::read(),
    };
    let unusable = |error: KubeconfigError| ConnectError::Kubeconfig { origin: origin.to_string(), why: chain(&error) };
    let file = file.map_err(unusable)?;
    let context = options.context.clone().or_else(|| file.current_context.clone()).unwrap_or_default();
    let named = file.contexts.iter().find(|named| named.name == context);
    let user = named.and_then(|named| named.context.as_ref()?.user.clone());
    let source = Source { origin: origin.to_string(), context: Some(context), user };
    let choice = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(file, &choice).await.map_err(unusable)?;
    Ok((config, source))
}
