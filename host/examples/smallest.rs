//! The smallest host: runs a call on the cluster of the kubeconfig and prints its result.
//!
//!     cargo run --example smallest -- '{"image": "bash:5", "command": ["bash", "-c", "echo hello > /output/result.json"]}'

use hops_k8s::plugin::{CallCtx, EMBEDDED, Plugin};
use hops_k8s::pods::Pods;
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s::policy::Policy;
use std::error::Error;
use std::sync::Arc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let inputs = std::env::args().nth(1).ok_or("give the inputs of a call as JSON")?;
    let plugin = Plugin::load(EMBEDDED)?;
    let pods = Arc::new(KubePods::connect(KubeOptions::default()).await?);
    let ctx = CallCtx::new(pods.clone(), Arc::new(Policy::default()));
    println!("{}", plugin.call(ctx, "run", &inputs).await?);
    // The pod is deleted in the background.
    pods.drained().await;
    Ok(())
}
