//! `hops plugin inspect`: what a plugin is and can do.

use crate::exit::{CommandError, Status};
use crate::global::Global;
use crate::plugins;
use hops_k8s::plugin::Limits;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

/// What to look at.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Plugin file [default: the plugin in this program]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn inspect(global: &Global, arguments: &Arguments) -> Result<Status, CommandError> {
    let component = plugins::component(arguments.file.as_deref().or(global.plugin.as_deref()))?;
    let plugin = plugins::load(&component, Limits::default())?;
    let description = plugin.describe().await.map_err(CommandError::usage)?;
    let found = plugin.inspection();
    let handlers: Vec<Value> = description
        .handlers
        .iter()
        .map(|handler| {
            json!({
                "name": handler.name,
                "summary": handler.summary,
                "inputs_schema": serde_json::from_str(&handler.inputs_schema).unwrap_or(Value::Null),
            })
        })
        .collect();
    let text = if arguments.json {
        let all = json!({
            "name": description.name,
            "version": description.version,
            "summary": description.summary,
            "size": found.size,
            "sha256": found.sha256,
            "exports": found.exports,
            "imports": found.imports,
            "handlers": handlers,
        });
        format!("{all:#}\n")
    } else {
        let mut text = format!(
            "{} {}: {}\nsize     {} bytes\nsha256   {}\n",
            description.name, description.version, description.summary, found.size, found.sha256
        );
        for (what, names) in [("exports", &found.exports), ("imports", &found.imports)] {
            for name in names {
                text += &format!("{what}  {name}\n");
            }
        }
        for (handler, shown) in description.handlers.iter().zip(&handlers) {
            text += &format!("\nhandler {}_{}: {}\n", description.name, handler.name, handler.summary);
            text += &format!("inputs: {:#}\n", shown.get("inputs_schema").unwrap_or(&Value::Null));
        }
        text
    };
    // A reader that has seen enough, such as `head`, is not an error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(Status::Completed)
}
