//! The backend that calls run on, and its remedies.

use crate::exit::CommandError;
use crate::global::Global;
use crate::interrupt::Interrupt;
use clap::ValueEnum;
use hops_k8s::pods::Pods;
use hops_k8s::pods::engine::{EngineError, EngineOptions, EnginePods};
use hops_k8s::pods::kube::{ConnectError, KubePods};
#[cfg(target_os = "linux")]
use hops_k8s::pods::process::{Network, ProcessOptions, ProcessPods};
use std::sync::Arc;

/// The backends that need no cluster.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Local {
    #[value(hide = true)]
    Auto,
    Engine,
    Process,
}

/// Opens the backend. Prints which it is if `--local` leaves the choice open. Processes use this machine's network if
/// `network` says so.
pub(crate) async fn open(global: &Global, local: Option<Local>, network: bool) -> Result<Arc<dyn Pods>, CommandError> {
    match local {
        None => {
            let pods = KubePods::connect(global.kube_options()).await.map_err(no_cluster)?;
            Ok(Arc::new(pods))
        }
        Some(Local::Engine) => Ok(Arc::new(engine().await.map_err(CommandError::unavailable)?)),
        Some(Local::Process) => process(global, network).await,
        Some(Local::Auto) => match engine().await {
            Ok(engine) => {
                global.note(format_args!("running on {}", engine.description()));
                Ok(Arc::new(engine))
            }
            Err(error @ EngineError::None { .. }) => {
                tracing::debug!(%error);
                process(global, network).await
            }
            Err(error) => Err(CommandError::unavailable(error)),
        },
    }
}

async fn engine() -> Result<EnginePods, EngineError> {
    EnginePods::connect(EngineOptions::default()).await
}

#[cfg(target_os = "linux")]
async fn process(global: &Global, network: bool) -> Result<Arc<dyn Pods>, CommandError> {
    global.note(
        "the image is not used: calls run as processes with this machine's own programs; this protects from accidents, \
         not from hostile code",
    );
    let mut options = ProcessOptions::default();
    options.network = if network { Network::Machine } else { Network::Own };
    Ok(Arc::new(ProcessPods::new(options)))
}

#[cfg(not(target_os = "linux"))]
async fn process(_: &Global, _: bool) -> Result<Arc<dyn Pods>, CommandError> {
    Err(CommandError::unavailable(
        "calls run as processes on Linux only; start Docker or Podman and use --local=engine",
    ))
}

/// Why there is no cluster, and what to do about it.
pub(crate) fn no_cluster(error: ConnectError) -> CommandError {
    CommandError::unavailable(with_remedy(&error))
}

/// The sentence of an error, and what to do about it.
pub(crate) fn with_remedy(error: &ConnectError) -> String {
    let remedy = match error {
        ConnectError::Kubeconfig { .. } => "give another with --kubeconfig, or another context with --context",
        ConnectError::ServiceAccount(_) => "mount its token, or give a kubeconfig file with --kubeconfig",
        _ => "give a kubeconfig file with --kubeconfig",
    };
    format!("{error}; {remedy}")
}

/// Waits until no pod is left. Another interrupt ends the wait.
pub(crate) async fn close(pods: &dyn Pods, interrupt: &mut Interrupt) -> Result<(), CommandError> {
    tokio::select! {
        () = pods.drained() => Ok(()),
        () = interrupt.next() => {
            Err(CommandError::interrupted("interrupted again: a pod may be left; its own deadline will end it"))
        }
    }
}
