//! Plugins by the names of their apps.

use super::{CallError, Description, Handler, Plugin};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Plugins by the names of their apps. Cloning it shares them.
#[derive(Clone, Debug)]
pub struct Plugins(Arc<BTreeMap<String, Registered>>);

#[derive(Debug)]
struct Registered {
    plugin: Arc<Plugin>,
    description: Description,
}

/// Why plugins cannot be registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// A plugin does not say which app it is.
    #[error("the plugin does not describe itself: {0}")]
    Undescribed(#[source] CallError),
    /// Two plugins are the same app.
    #[error("two plugins are the app {0:?}; register one of them")]
    Duplicate(String),
}

impl Plugins {
    /// Asks each plugin which app it is.
    ///
    /// # Errors
    /// One does not say, or two are the same.
    pub async fn new(plugins: impl IntoIterator<Item = Arc<Plugin>>) -> Result<Self, RegisterError> {
        let mut by_app = BTreeMap::new();
        for plugin in plugins {
            let description = plugin.describe().await.map_err(RegisterError::Undescribed)?.clone();
            let app = description.name.clone();
            if by_app.insert(app.clone(), Registered { plugin, description }).is_some() {
                return Err(RegisterError::Duplicate(app));
            }
        }
        Ok(Plugins(by_app.into()))
    }

    /// The plugin of an app.
    pub fn get(&self, app: &str) -> Option<&Arc<Plugin>> {
        self.0.get(app).map(|registered| &registered.plugin)
    }

    /// The names of the apps.
    pub fn apps(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|app| &**app)
    }

    /// All handlers, each with the name of its app.
    pub fn handlers(&self) -> impl Iterator<Item = (&str, &Handler)> {
        self.0.iter().flat_map(|(app, registered)| registered.description.handlers.iter().map(move |one| (&**app, one)))
    }

    /// Whether an app has a handler.
    pub fn has(&self, app: &str, handler: &str) -> bool {
        self.handlers().any(|(known, one)| known == app && one.name == handler)
    }
}
