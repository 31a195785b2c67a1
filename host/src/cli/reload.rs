//! What a service runs calls with, read again from its files while it runs.

use super::{Failure, Global, component, plugin_of, policy};
use hops_k8s::app::App;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::watch;

pub(super) struct Reload {
    apps: watch::Sender<App>,
    component: Cow<'static, [u8]>,
    calls: usize,
}

impl Reload {
    /// For an app whose plugin was made of this component, for so many calls at a time.
    pub(super) fn new(app: App, component: Cow<'static, [u8]>, calls: usize) -> Self {
        Reload { apps: watch::channel(app).0, component, calls }
    }

    /// The app, at any time.
    pub(super) fn apps(&self) -> watch::Receiver<App> {
        self.apps.subscribe()
    }

    /// Reads policy and plugin again, for the calls that begin from now on. Where one of them cannot be used, both stay.
    pub(super) async fn reload(&mut self, global: &Global) {
        match self.read(global).await {
            Ok(app) => {
                // What the log says has come to pass.
                self.apps.send_replace(app.clone());
                tracing::info!(policy = %app.policy, plugin = app.plugin.inspection().sha256, "policy and plugin read");
            }
            Err(Failure { message, .. }) => tracing::error!(error = message, "policy and plugin stay as they were"),
        }
    }

    async fn read(&mut self, global: &Global) -> Result<App, Failure> {
        let policy = policy::load(global.policy.as_deref())?;
        let component = component(global.plugin.as_deref())?;
        let app = self.apps.borrow().clone();
        // Each engine sets address space aside for all calls, so there is one for each plugin and not for each signal.
        let plugin = if component == self.component {
            app.plugin.clone()
        } else {
            let plugin = plugin_of(global, &component, self.calls)?;
            plugin.describe().await.map_err(Failure::usage)?;
            self.component = component;
            Arc::new(plugin)
        };
        Ok(app.replaced(plugin, policy))
    }
}
