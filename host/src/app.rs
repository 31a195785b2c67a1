//! What runs calls, whoever asks for them.

use crate::plugin::{CallCtx, CallError, Plugin};
use crate::pods::Pods;
use crate::policy::{InFlight, Policy};
use crate::{document, metrics};
use std::sync::Arc;
use std::time::SystemTime;

/// A plugin, with the pods that its calls get. Cloning it shares them.
#[derive(Clone)]
pub struct App {
    /// What calls mean.
    pub plugin: Arc<Plugin>,
    /// Where their pods run.
    pub pods: Arc<dyn Pods>,
    /// What they may do.
    pub policy: Arc<Policy>,
    in_flight: Arc<InFlight>,
}

/// What came of a call.
#[derive(Clone, Debug)]
pub struct Called {
    /// The result document.
    pub document: String,
    /// The stable word for how the call ended: the first of the document's error, `Completed` without one.
    pub outcome: String,
}

impl Called {
    /// The result of a call that has none but this error.
    pub(crate) fn errored(started: SystemTime, error: &str) -> Self {
        Called { document: document::errored(started, error), outcome: metrics::outcome(Some(error)).into() }
    }

    /// The result of the same call, with this error instead of what it held.
    pub(crate) fn replaced(&self, error: &str) -> Self {
        Called { document: document::replaced(&self.document, error), outcome: metrics::outcome(Some(error)).into() }
    }
}

impl App {
    /// What runs calls with these.
    pub fn new(plugin: Arc<Plugin>, pods: Arc<dyn Pods>, policy: Policy) -> Self {
        Self::counting(Arc::default(), plugin, pods, policy)
    }

    /// The same with another plugin and policy. The calls that run already keep theirs, and count within the limits of
    /// this one.
    #[must_use]
    pub fn replaced(&self, plugin: Arc<Plugin>, policy: Policy) -> Self {
        Self::counting(self.in_flight.clone(), plugin, self.pods.clone(), policy)
    }

    fn counting(in_flight: Arc<InFlight>, plugin: Arc<Plugin>, pods: Arc<dyn Pods>, policy: Policy) -> Self {
        in_flight.limit(&policy);
        App { plugin, pods, policy: policy.into(), in_flight }
    }

    /// What a call is given.
    pub fn ctx(&self) -> CallCtx {
        CallCtx::new(self.pods.clone(), self.policy.clone()).in_flight(self.in_flight.clone())
    }

    /// Runs a call. Its error is `PluginFailed` or `UnknownHandler` where the plugin has no result to give. Dropping the
    /// future cancels the call.
    pub async fn call(&self, ctx: CallCtx, handler: &str, inputs: &str) -> Called {
        let started = SystemTime::now();
        let error = match self.plugin.call(ctx, handler, inputs).await {
            Ok(document) => match document::outcome(&document) {
                Some(outcome) => return Called { document, outcome },
                None => "PluginFailed: the plugin's result is no result document".into(),
            },
            Err(CallError::UnknownHandler(why)) => format!("{}: {why}", document::UNKNOWN_HANDLER),
            Err(error) => format!("PluginFailed: {error}"),
        };
        tracing::error!(error, "the plugin gave no result");
        Called::errored(started, &error)
    }
}
