//! The plugin that the command runs.

use crate::exit::CommandError;
use crate::global::Global;
use etcetera::BaseStrategy;
use hops_k8s::plugin::{EMBEDDED, Limits, LoadError, Plugin, Plugins, Runtime};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// The plugin that the options name, for this many calls at a time.
pub(crate) async fn plugins(global: &Global, calls: usize) -> Result<Plugins, CommandError> {
    plugins_of(global, &component(global.plugin.as_deref())?, calls).await
}

/// The component in this file, or the one in this program.
pub(crate) fn component(path: Option<&Path>) -> Result<Cow<'static, [u8]>, CommandError> {
    let Some(path) = path else { return Ok(EMBEDDED.into()) };
    let unreadable = |error| CommandError::usage(format!("the plugin {} cannot be read: {error}", path.display()));
    std::fs::read(path).map(Cow::Owned).map_err(unreadable)
}

/// The plugins of this component, for this many calls at a time.
pub(crate) async fn plugins_of(global: &Global, component: &[u8], calls: usize) -> Result<Plugins, CommandError> {
    let mut limits = Limits::default();
    limits.calls = u32::try_from(calls).unwrap_or(u32::MAX);
    let plugin = load(component, limits).map_err(|error| match &global.plugin {
        Some(path) => CommandError::usage(format!("{}: {error}; choose another with --plugin", path.display())),
        None => error.into(),
    })?;
    Plugins::new([Arc::new(plugin)]).await.map_err(CommandError::from)
}

/// Loads a component. It is compiled once, and later taken from the user's cache.
pub(crate) fn load(component: &[u8], limits: Limits) -> Result<Plugin, LoadError> {
    let runtime = Runtime::new(limits)?;
    match etcetera::choose_base_strategy() {
        Ok(dirs) => runtime.cache(dirs.cache_dir().join("hops")),
        Err(_) => runtime,
    }
    .load(component)
}
