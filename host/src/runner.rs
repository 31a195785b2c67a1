//! What runs calls, whoever asks for them.

use crate::document::CallResult;
use crate::plugin::{CallCtx, CallError, Plugins};
use crate::pods::Pods;
use crate::policy::Policy;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// The outcome of a call that no plugin has a handler for.
pub(crate) const UNKNOWN_HANDLER: &str = "UnknownHandler";

/// Plugins, the pods that their calls get, and the policy that calls are held to. Cloning it shares them.
#[derive(Clone)]
pub struct Runner {
    plugins: Plugins,
    pods: Arc<dyn Pods>,
    policy: Arc<Policy>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("plugins", &self.plugins).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Runner {
    /// Runs calls of these plugins with these pods.
    pub fn new(plugins: Plugins, pods: Arc<dyn Pods>, policy: Policy) -> Self {
        Runner { plugins, pods, policy: policy.into() }
    }

    /// The same with other plugins and another policy. Calls that run already keep theirs, and count within the limits
    /// of the new policy.
    #[must_use]
    pub fn replaced(&self, plugins: Plugins, policy: Policy) -> Self {
        Runner::new(plugins, self.pods.clone(), policy.in_place_of(&self.policy))
    }

    /// The plugins, by the names of their apps.
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// The backend.
    pub fn pods(&self) -> &Arc<dyn Pods> {
        &self.pods
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What a call is given.
    pub fn ctx(&self) -> CallCtx {
        CallCtx::new(self.pods.clone(), self.policy.clone())
    }

    /// Runs a call. Where the plugin has no result to give, the result's error is `PluginFailed` or `UnknownHandler`.
    /// Dropping the future cancels the call.
    pub async fn call(&self, ctx: CallCtx, app: &str, handler: &str, inputs: &str) -> CallResult {
        let started = SystemTime::now();
        let called = match self.plugins.get(app) {
            Some(plugin) => plugin.call(ctx, handler, inputs).await,
            None => {
                let apps: Vec<&str> = self.plugins.apps().collect();
                let why = format!("this host has no app {app:?}; it has {}", apps.join(", "));
                Err(CallError::UnknownHandler(why))
            }
        };
        called.unwrap_or_else(|error| {
            let error = match error {
                CallError::UnknownHandler(why) => format!("{UNKNOWN_HANDLER}: {why}"),
                error => format!("PluginFailed: {error}"),
            };
            tracing::error!(error, "the plugin gave no result");
            CallResult::errored(started, &error)
        })
    }
}
