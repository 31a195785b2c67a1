//! Writes what is distributed beside the command into a folder: `dist FOLDER`.

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId, Target};
use hops_k8s::plugin::{EMBEDDED, Plugin};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn main() -> Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).context("usage: dist FOLDER")?);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("k8s.wasm"), EMBEDDED)?;
    let sha256 = Plugin::load(EMBEDDED)?.inspection().sha256.clone();
    // The form that `sha256sum --check` reads.
    fs::write(folder.join("k8s.wasm.sha256"), format!("{sha256}  k8s.wasm\n"))?;
    fs::write(folder.join("hops.cdx.json"), serde_json::to_string_pretty(&bill_of_materials()?)?)?;
    let workspace = Path::new(WORKSPACE);
    copy_files(&workspace.join("host/deploy"), &folder.join("deploy"))?;
    for checks in ["vectors", "backends"] {
        copy_files(&workspace.join("tests").join(checks), &folder.join("conformance").join(checks))?;
    }
    Ok(())
}

/// Copies the files of a folder that has no others in it.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// The packages that the command and the plugin in it are linked with, in CycloneDX's form.
fn bill_of_materials() -> Result<Value> {
    let metadata = MetadataCommand::new().manifest_path(Path::new(WORKSPACE).join("Cargo.toml")).exec()?;
    let packages: BTreeMap<&PackageId, &Package> =
        metadata.packages.iter().map(|package| (&package.id, package)).collect();
    let mut found = packages.values().filter(|package| package.targets.iter().any(is_command));
    let command = found.next().context("no package has the command")?;
    let mut found = packages.values().filter(|package| package.name == "hops-k8s-plugin");
    let plugin = found.next().context("the plugin's package is missing")?;
    let used = used_by(&metadata, [&command.id, &plugin.id])?;
    let others = used.iter().filter(|id| **id != &command.id).filter_map(|id| packages.get(id));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(command, "application")},
        "components": others.map(|package| component(package, "library")).collect::<Vec<_>>(),
    }))
}

fn is_command(target: &Target) -> bool {
    target.is_bin() && target.name == "hops"
}

/// These packages, and all that are linked into them.
fn used_by<'a>(metadata: &'a Metadata, roots: [&'a PackageId; 2]) -> Result<BTreeSet<&'a PackageId>> {
    let resolve = metadata.resolve.as_ref().context("cargo did not resolve the dependencies")?;
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut open = Vec::from(roots);
    let mut used: BTreeSet<&PackageId> = open.iter().copied().collect();
    while let Some(node) = open.pop().and_then(|id| nodes.get(id)) {
        for dependency in &node.deps {
            let is_linked = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if is_linked && used.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    Ok(used)
}

fn component(package: &Package, kind: &str) -> Value {
    json!({
        "type": kind,
        "name": package.name,
        "version": package.version.to_string(),
        "purl": format!("pkg:cargo/{}@{}", package.name, package.version),
        "licenses": package.license.iter().map(|license| json!({"expression": license})).collect::<Vec<_>>(),
    })
}
