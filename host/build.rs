//! Gives the library the component to embed: built from the plugin's source in the workspace, packed with the crate
//! where that was published.
//!
//! `HOPS_K8S_PLUGIN` names a component to embed instead.

#[path = "build/component.rs"]
mod component;

use anyhow::{Context, Result, ensure};
use component::TARGET;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

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
    let manifest_dir = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir.join("..");
    let component = if let Some(path) = env::var_os("HOPS_K8S_PLUGIN") {
        println!("cargo::rerun-if-changed={}", Path::new(&path).display());
        fs::read(&path).with_context(|| format!("cannot read {}, which HOPS_K8S_PLUGIN names", path.display()))?
    } else if workspace.join("plugin/Cargo.toml").exists() {
        let workspace = workspace.canonicalize()?;
        for path in
            ["plugin/src", "plugin/Cargo.toml", "wit", "Cargo.toml", "Cargo.lock", "host/build", "host/src/shared"]
        {
            println!("cargo::rerun-if-changed={}", workspace.join(path).display());
        }
        check_target()?;
        component::build(&var("CARGO")?, &workspace, &out_dir()?.join("plugin"))?
    } else {
        let packed = manifest_dir.join("k8s.wasm");
        println!("cargo::rerun-if-changed={}", packed.display());
        fs::read(&packed).with_context(|| format!("the crate lacks its component {}", packed.display()))?
    };
    fs::write(out_dir()?.join("k8s.wasm"), component)?;
    Ok(())
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

fn out_dir() -> Result<PathBuf> {
    Ok(var("OUT_DIR")?.into())
}

fn var(name: &str) -> Result<OsString> {
    env::var_os(name).with_context(|| format!("cargo did not set {name}"))
}
