//! Puts what is distributed into a folder: `dist FOLDER HOPS`, with the command as it was built for release.

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use hops_k8s::plugin::{EMBEDDED, Plugin};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::Path;

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let (folder, hops) = arguments.next().zip(arguments.next()).context("usage: dist FOLDER HOPS")?;
    let folder = Path::new(&folder);
    fs::create_dir_all(folder.join("deploy"))?;
    fs::copy(&hops, folder.join("hops")).with_context(|| format!("there is no {}", hops.display()))?;
    fs::write(folder.join("k8s.wasm"), EMBEDDED)?;
    let sha256 = Plugin::load(EMBEDDED)?.inspection().sha256.clone();
    // As sha256sum has it, which can check it.
    fs::write(folder.join("k8s.wasm.sha256"), format!("{sha256}  k8s.wasm\n"))?;
    fs::write(folder.join("hops.cdx.json"), serde_json::to_string_pretty(&bill_of_materials()?)?)?;
    for manifest in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../host/deploy"))? {
        let manifest = manifest?;
        fs::copy(manifest.path(), folder.join("deploy").join(manifest.file_name()))?;
    }
    Ok(())
}

/// What `hops` and the plugin in it are made of, as CycloneDX has it.
fn bill_of_materials() -> Result<Value> {
    let metadata =
        MetadataCommand::new().manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).exec()?;
    let packages: BTreeMap<&PackageId, &Package> =
        metadata.packages.iter().map(|package| (&package.id, package)).collect();
    let ours = ["hops-k8s", "hops-k8s-plugin"];
    let roots = metadata.packages.iter().filter(|package| ours.contains(&package.name.as_str()));
    let used = used_by(&metadata, roots.map(|package| &package.id))?;
    let hops = metadata.packages.iter().find(|package| package.name == "hops-k8s").context("there is no hops-k8s")?;
    let others = used.iter().filter(|id| **id != &hops.id).filter_map(|id| packages.get(id));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(hops)},
        "components": others.map(|package| component(package)).collect::<Vec<_>>(),
    }))
}

/// The packages that these are linked with.
fn used_by<'a>(metadata: &'a Metadata, roots: impl Iterator<Item = &'a PackageId>) -> Result<BTreeSet<&'a PackageId>> {
    let resolve = metadata.resolve.as_ref().context("cargo did not resolve the dependencies")?;
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut open: Vec<&PackageId> = roots.collect();
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

fn component(package: &Package) -> Value {
    json!({
        "type": if package.name == "hops-k8s" { "application" } else { "library" },
        "name": package.name,
        "version": package.version.to_string(),
        "purl": format!("pkg:cargo/{}@{}", package.name, package.version),
        "licenses": package.license.iter().map(|license| json!({"expression": license})).collect::<Vec<_>>(),
    })
}
