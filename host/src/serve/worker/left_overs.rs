//! Pods of this account whose worker ended before it could delete them.
//!
//! Their ConfigMaps belong to them, so the cluster deletes those too.

use super::inner::Inner;
use super::request::{Request, account_label};
use crate::pods::{Error, FoundPod};
use std::time::{Duration, SystemTime};

/// The pause between two searches.
const PERIOD: Duration = Duration::from_secs(5 * 60);
/// The pause before an extra search, which a redelivery causes: other requests may be about to be redelivered too.
const SOON: Duration = Duration::from_secs(1);
/// A younger pod is left alone even if its request is gone: whoever removes requests may be about to add them again.
const YOUNG: Duration = Duration::from_secs(60);

/// Searches for left-over pods now, regularly, and when it is woken. Never returns.
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
