//! Builds the plugin and makes a component of it, to embed in the library.
//!
//! `HOPS_K8S_PLUGIN` names a component to embed instead.

use anyhow::{Context, Result, ensure};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "wasm32-unknown-unknown";

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<()> {
    println!("cargo::rerun-if-env-changed=HOPS_K8S_PLUGIN");
    let component = match env::var_os("HOPS_K8S_PLUGIN") {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", Path::new(&path).display());
            fs::read(&path).with_context(|| format!("cannot read {}, which HOPS_K8S_PLUGIN names", path.display()))?
        }
        None => {
            let module = build_module()?;
            wit_component::ComponentEncoder::default().module(&module)?.validate(true).encode()?
        }
    };
    fs::write(out_dir()?.join("k8s.wasm"), component)?;
    Ok(())
}

fn build_module() -> Result<Vec<u8>> {
    let workspace = PathBuf::from(var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    for path in ["plugin/src", "plugin/Cargo.toml", "wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    check_target()?;

    let target_dir = out_dir()?.join("plugin");
    let mut cargo = Command::new(var("CARGO")?);
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
        .arg(&target_dir)
        .current_dir(&workspace);
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
        remap(&workspace, "/hops-k8s"),
        remap(&cargo_home, "/cargo"),
        "-Cllvm-args=-inline-threshold=10".into(),
        "-Cllvm-args=-inlinehint-threshold=10".into(),
    ];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));

    ensure!(cargo.status()?.success(), "the plugin does not build, see above");
    Ok(fs::read(target_dir.join(TARGET).join("plugin/hops_k8s_plugin.wasm"))?)
}

fn check_target() -> Result<()> {
    let output = Command::new(var("RUSTC")?).args(["--print=target-libdir", "--target", TARGET]).output()?;
    let libdir = String::from_utf8(output.stdout)?;
    ensure!(
        Path::new(libdir.trim()).is_dir(),
        "Rust's target {TARGET} is missing, which the plugin is built for: run `rustup target add {TARGET}`"
    );
    Ok(())
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

fn out_dir() -> Result<PathBuf> {
    Ok(var("OUT_DIR")?.into())
}

fn var(name: &str) -> Result<OsString> {
    env::var_os(name).with_context(|| format!("cargo did not set {name}"))
}
