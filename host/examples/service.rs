//! A service: `POST /run` with the inputs of a call as its body answers with the result document. A client that goes away
//! cancels its call, which deletes the pod.
//!
//!     cargo run --example service
//!     curl 127.0.0.1:3000/run -d '{"image": "bash:5", "command": ["bash", "-c", "echo hello > /output/result.json"]}'

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use hops_k8s::plugin::{CallCtx, CallError, EMBEDDED, Plugin};
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s::policy::Policy;
use std::error::Error;
use std::sync::Arc;
use tokio::net::TcpListener;

#[derive(Clone)]
struct Service {
    plugin: Arc<Plugin>,
    pods: Arc<KubePods>,
    policy: Arc<Policy>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let service = Service {
        plugin: Arc::new(Plugin::load(EMBEDDED)?),
        pods: Arc::new(KubePods::connect(KubeOptions::default()).await?),
        policy: Arc::default(),
    };
    let router = Router::new().route("/run", post(run)).with_state(service);
    axum::serve(TcpListener::bind("127.0.0.1:3000").await?, router).await?;
    Ok(())
}

async fn run(State(service): State<Service>, inputs: String) -> (StatusCode, String) {
    let ctx = CallCtx::new(service.pods, service.policy);
    match service.plugin.call(ctx, "run", &inputs).await {
        Ok(result) => (StatusCode::OK, result.into_text()),
        Err(CallError::UnknownHandler(why)) => (StatusCode::NOT_FOUND, why),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
