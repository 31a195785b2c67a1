//! Finding the cluster, and how to reach its pods.

use super::api::{ApiServer, chain};
use super::fetch::Route;
use super::watch::Watch;
use super::{Inner, KubePods};
use hyper::header::{HeaderValue, USER_AGENT};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

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
            server_image: "halverneus/static-file-server:v1.8.10".into(),
            server_port: 8917,
            server_cpu: pair("10m", "100m"),
            server_memory: pair("16Mi", "64Mi"),
        }
    }
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
        let (config, origin) = config(&options).await?;
        let route = if matches!(origin, Origin::ServiceAccount) && !options.port_forward {
            Route::PodIp
        } else {
            Route::PortForward
        };
        Self::with_config(config, origin.to_string(), route, options)
    }

    /// The cluster, with pods reached by their own addresses. For programs that know these to be routed, as from a
    /// node of the cluster.
    ///
    /// # Errors
    /// There is no cluster, or not as asked for.
    pub async fn connect_by_pod_ip(options: KubeOptions) -> Result<Self, ConnectError> {
        let (config, origin) = config(&options).await?;
        Self::with_config(config, origin.to_string(), Route::PodIp, options)
    }

    fn with_config(config: Config, origin: String, route: Route, options: KubeOptions) -> Result<Self, ConnectError> {
        let server = Arc::new(ApiServer::new(config.cluster_url.to_string(), options.patience));
        let client = client(config).map_err(|error| ConnectError::Kubeconfig { origin, why: chain(&error) })?;
        Ok(KubePods {
            inner: Arc::new(Inner {
                watch: Watch::new(client.clone(), server.clone()),
                client,
                server,
                options,
                route,
                tasks: TaskTracker::new(),
                runtime: Handle::current(),
            }),
        })
    }
}

/// What kube-rs would build, but with connections that send small requests at once: with Nagle's algorithm, the first
/// request of each waits 40 ms for the server to acknowledge the end of the TLS handshake.
fn client(mut config: Config) -> kube::Result<Client> {
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
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// Where the configuration comes from.
enum Origin {
    File(PathBuf),
    Environment,
    Home,
    ServiceAccount,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "the kubeconfig {}", path.display()),
            Origin::Environment => f.write_str("the kubeconfig that KUBECONFIG names"),
            Origin::Home => f.write_str("the kubeconfig ~/.kube/config"),
            Origin::ServiceAccount => f.write_str("the service account"),
        }
    }
}

async fn config(options: &KubeOptions) -> Result<(Config, Origin), ConnectError> {
    let context = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let origin = if let Some(path) = &options.kubeconfig {
        Origin::File(path.clone())
    } else if env::var_os("KUBECONFIG").is_some_and(|paths| !paths.is_empty()) {
        Origin::Environment
    } else if env::home_dir().is_some_and(|home| home.join(".kube/config").exists()) {
        Origin::Home
    } else if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Origin::ServiceAccount
    } else {
        return Err(ConnectError::None);
    };
    let config = match &origin {
        Origin::ServiceAccount => Config::incluster().map_err(|error| ConnectError::ServiceAccount(chain(&error)))?,
        Origin::File(path) => match Kubeconfig::read_from(path) {
            Ok(file) => {
                Config::from_custom_kubeconfig(file, &context).await.map_err(|error| unusable(&origin, &error))?
            }
            Err(error) => return Err(unusable(&origin, &error)),
        },
        Origin::Environment | Origin::Home => {
            Config::from_kubeconfig(&context).await.map_err(|error| unusable(&origin, &error))?
        }
    };
    Ok((config, origin))
}

fn unusable(origin: &Origin, error: &KubeconfigError) -> ConnectError {
    ConnectError::Kubeconfig { origin: origin.to_string(), why: chain(error) }
}
