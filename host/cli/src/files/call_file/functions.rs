//! The functions that expressions can call. hops has more.

use hcl::Value;
use hcl::eval::{Context, FuncArgs, FuncDef, ParamType};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// All of them, for messages.
pub(super) const NAMES: [&str; 4] = ["env", "file", "jsondecode", "jsonencode"];

thread_local! {
    /// The folder that `file` reads from. It is here because a function of hcl-rs cannot contain a value of its own.
    static FOLDER: RefCell<PathBuf> = const { RefCell::new(PathBuf::new()) };
}

/// Declares the functions for a file in this folder.
pub(super) fn declare(context: &mut Context, folder: &Path) {
    FOLDER.set(folder.into());
    let env = FuncDef::builder().param(ParamType::String).variadic_param(ParamType::String);
    context.declare_func("env", env.build(environment));
    context.declare_func("file", FuncDef::new(file, [ParamType::String]));
    context.declare_func("jsondecode", FuncDef::new(json_decode, [ParamType::String]));
    context.declare_func("jsonencode", FuncDef::new(json_encode, [ParamType::Any]));
}

fn text(arguments: &FuncArgs, index: usize) -> &str {
    arguments.get(index).and_then(Value::as_str).unwrap_or_default()
}

/// `env("NAME")`, `env("NAME", "default")`.
fn environment(arguments: FuncArgs) -> Result<Value, String> {
    let name = text(&arguments, 0);
    match (env::var(name), arguments.len()) {
        (_, 3..) => Err(format!("expected a name and a default, found {} arguments", arguments.len())),
        (Ok(value), _) => Ok(value.into()),
        (Err(env::VarError::NotUnicode(_)), _) => Err(format!("the environment variable {name} is not UTF-8")),
        (Err(env::VarError::NotPresent), 2) => Ok(text(&arguments, 1).into()),
        (Err(env::VarError::NotPresent), _) => {
            Err(format!("the environment variable {name} is not set; set it, or give a default: env({name:?}, \"\")"))
        }
    }
}

/// `file("path")`: the text of a file, relative to the folder of the call file.
fn file(arguments: FuncArgs) -> Result<Value, String> {
    let path = FOLDER.with_borrow(|folder| folder.join(text(&arguments, 0)));
    match fs::read_to_string(&path) {
        Ok(content) => Ok(content.into()),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

fn json_decode(arguments: FuncArgs) -> Result<Value, String> {
    serde_json::from_str(text(&arguments, 0)).map_err(|error| format!("not valid JSON: {error}"))
}

fn json_encode(arguments: FuncArgs) -> Result<Value, String> {
    match arguments.first().map(serde_json::to_string) {
        Some(Ok(json)) => Ok(json.into()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("expected a value".into()),
    }
}
