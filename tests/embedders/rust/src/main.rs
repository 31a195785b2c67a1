//! Runs a call with the program's own Kubernetes client, and prints what its result file held.

use hops_k8s::kube::Client;
use hops_k8s::plugin::{CallCtx, EMBEDDED, Plugin};
use hops_k8s::pods::Pods;
use hops_k8s::pods::kube::{KubeOptions, KubePods};
use hops_k8s::policy::Policy;
use k8s_openapi::api::core::v1::Namespace;
use std::error::Error;
use std::sync::Arc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::try_default().await?;
    let namespaces = hops_k8s::kube::Api::<Namespace>::all(client.clone()).list_metadata(&Default::default()).await?;
    println!("{} namespaces", namespaces.items.len());

    let pods = Arc::new(KubePods::new(client, KubeOptions::default()));
    let plugin = Plugin::load(EMBEDDED)?;
    let ctx = CallCtx::new(pods.clone(), Arc::new(Policy::default()));
    let inputs = serde_json::json!({"image": "bash:5", "command": ["bash", "-c", "echo -n hello > /output/result.json"]});
    let result = plugin.call(ctx, "run", &inputs.to_string()).await?;
    match &result.document().hops.error {
        None => println!("{}", result.document().body),
        Some(error) => eprintln!("{error}"),
    }
    pods.drained().await;
    Ok(())
}
