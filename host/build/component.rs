//! Builds the plugin.

use anyhow::{Context, Result, ensure};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the plugin is built for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Builds the plugin of a workspace and makes a component of it, the same bytes wherever that is.
pub fn build(cargo: &OsStr, workspace: &Path, target_dir: &Path) -> Result<Vec<u8>> {
    let mut cargo = Command::new(cargo);
    cargo
        .args([
            "build",
            "--package=hops-k8s-plugin",
            "--profile=plugin",
            "--locked",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(target_dir)
        .current_dir(workspace);
    // What cargo says to this build is not meant for that one.
    for (name, _) in env::vars_os() {
        if is_of_this_build(&name.to_string_lossy()) {
            cargo.env_remove(&name);
        }
    }
    // Panic messages name source files; without this the component would depend on where it was built.
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("cannot tell where cargo keeps its registry: set CARGO_HOME")?;
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let flags = [
        remap(workspace, "/hops-k8s"),
        remap(&cargo_home, "/cargo"),
        "-Cllvm-args=-inline-threshold=10".into(),
        "-Cllvm-args=-inlinehint-threshold=10".into(),
    ];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));

    ensure!(cargo.status()?.success(), "the plugin does not build, see above");
    let module = fs::read(target_dir.join(TARGET).join("plugin/hops_k8s_plugin.wasm"))?;
    wit_component::ComponentEncoder::default().module(&module)?.validate(true).encode()
}

fn is_of_this_build(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["CARGO_FEATURE_", "CARGO_CFG_", "CARGO_PROFILE_", "CARGO_PKG_"];
    const NAMES: [&str; 16] = [
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "DEBUG",
        "HOST",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC_BOOTSTRAP",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "TARGET",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}
