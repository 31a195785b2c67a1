//! Pods of this account that nobody waits for any more: their worker was ended before it could delete them.
//!
//! Their ConfigMaps belong to them, so that the cluster deletes these.

use super::Inner;
use super::request::{Request, account_label};
use crate::pods::{Error, FoundPod};
use std::time::{Duration, SystemTime};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5 * 60);
/// How long after a redelivery the worker looks out of turn: others may be about to be redelivered.
const SOON: Duration = Duration::from_secs(1);
/// A pod whose request is gone is left alone for as long, because who removes requests may be about to add them again.
const YOUNG: Duration = Duration::from_secs(60);

/// Looks for left-overs now, regularly and when told to. Never returns.
pub(super) async fn sweep(inner: &Inner) {
    loop {
        match sweep_once(inner).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "left-over pods deleted"),
            Err(error) => tracing::warn!(%error, "left-over pods not deleted; the next try is in some minutes"),
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = inner.sweep.notified() => tokio::time::sleep(SOON).await,
        }
    }
}

async fn sweep_once(inner: &Inner) -> Result<usize, Error> {
    let runner = inner.runner();
    let pods = runner.pods();
    let mut count = 0;
    for pod in pods.find(&account_label(&inner.options.account)).await? {
        if is_left_over(inner, &pod).await {
            tracing::debug!(pod = pod.name, namespace = pod.namespace, "left over");
            pods.remove(&pod).await?;
            count += 1;
        }
    }
    Ok(count)
}

async fn is_left_over(inner: &Inner, pod: &FoundPod) -> bool {
    let Some(request) = Request::of_pod(&inner.options.account, &pod.annotations) else { return false };
    if inner.live.has(&pod.name) {
        return false;
    }
    if inner.queue.holds(&request.notify()).await {
        return true;
    }
    let age = SystemTime::now().duration_since(pod.created).unwrap_or_default();
    age > YOUNG && !inner.queue.holds(&request.subject()).await
}
