//! What the host and the plugin have in common. The plugin includes this folder by its path, so that each of these
//! things is written once and the host can be published without the plugin's source.

pub mod document;
pub mod env;
pub mod quantity;
