//! Reads the policy and the plugin again while a service runs.

use crate::exit::CommandError;
use crate::files::policy;
use crate::global::Global;
use crate::plugins::{component, plugins_of};
use hops_k8s::runner::Runner;
use std::borrow::Cow;
use tokio::sync::watch;

pub(crate) struct Reload {
    runners: watch::Sender<Runner>,
    component: Cow<'static, [u8]>,
    calls: usize,
}

impl Reload {
    /// For a runner whose plugin is this component, with this many calls at a time.
    pub(crate) fn new(runner: Runner, component: Cow<'static, [u8]>, calls: usize) -> Self {
        Reload { runners: watch::channel(runner).0, component, calls }
    }

    /// The current runner, at any time.
    pub(crate) fn runners(&self) -> watch::Receiver<Runner> {
        self.runners.subscribe()
    }

    /// Reads policy and plugin again, for later calls. If one of them cannot be used, both stay as they were.
    pub(crate) async fn reload(&mut self, global: &Global) {
        match self.read(global).await {
            Ok(runner) => {
                let plugins = runner.plugins();
                let plugin = plugins.apps().find_map(|app| plugins.get(app)).map(|plugin| &*plugin.inspection().sha256);
                // This comes first, so that it is done when the log says so.
                self.runners.send_replace(runner.clone());
                tracing::info!(policy = %runner.policy(), plugin, "policy and plugin read");
            }
            Err(CommandError { message, .. }) => {
                tracing::error!(error = message, "policy and plugin stay as they were")
            }
        }
    }

    async fn read(&mut self, global: &Global) -> Result<Runner, CommandError> {
        let policy = policy::load(global.policy.as_deref())?;
        let component = component(global.plugin.as_deref())?;
        let runner = self.runners.borrow().clone();
        // Each runtime reserves address space for all calls, so the same plugin keeps its runtime.
        let plugins = if component == self.component {
            runner.plugins().clone()
        } else {
            let plugins = plugins_of(global, &component, self.calls).await?;
            if !plugins.apps().eq(runner.plugins().apps()) {
                let [new, old] =
                    [&plugins, runner.plugins()].map(|plugins| plugins.apps().collect::<Vec<_>>().join(", "));
                return Err(CommandError::usage(format!(
                    "the new plugin is the app {new} and this process serves {old}; restart it to serve another app"
                )));
            }
            self.component = component;
            plugins
        };
        Ok(runner.replaced(plugins, policy))
    }
}
