//! The plugin against the published versions of its contract.

#[path = "../host/build/component.rs"]
mod component;

use hops_k8s::plugin::EMBEDDED;
use rstest::rstest;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use wit_component::ComponentEncoder;
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, WorldId};

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn contract(folder: &Path) -> (Resolve, WorldId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(folder).unwrap();
    let world = resolve.select_world(&[package], Some("k8s-app")).unwrap();
    (resolve, world)
}

fn published() -> Vec<PathBuf> {
    let versions = fs::read_dir(Path::new(WORKSPACE).join("tests/contract")).unwrap();
    versions.map(|version| version.unwrap().path()).collect()
}

/// A plugin that imports and exports everything in a contract.
fn plugin_of(folder: &Path) -> Vec<u8> {
    let (resolve, world) = contract(folder);
    let mut module = wit_component::dummy_module(&resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync));
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

fn runs_in_host_of(folder: &Path, plugin: &[u8]) -> bool {
    let (resolve, world) = contract(folder);
    wit_component::targets(&resolve, world, plugin).is_ok()
}

#[test]
fn a_plugin_runs_in_hosts_of_every_published_version() {
    let current = plugin_of(&Path::new(WORKSPACE).join("wit"));
    for version in published() {
        assert!(runs_in_host_of(&version, EMBEDDED), "the plugin, in a host of {}", version.display());
        assert!(
            runs_in_host_of(&version, &current),
            "a plugin that uses all of wit/, in a host of {}",
            version.display()
        );
    }
}

#[rstest]
#[case::nothing("", "", true)]
#[case::an_added_export("  /// Everything that is wrong", "  more: func();\n  /// Everything that is wrong", true)]
#[case::an_added_import("    /// Deletes the pod and", "    more: func();\n    /// Deletes the pod and", false)]
#[case::a_renamed_export("  describe: func() -> description;", "  tell: func() -> description;", false)]
#[case::an_added_field("    deleted: bool,", "    deleted: bool,\n    more: bool,", false)]
#[case::a_removed_field("    waits-for-room: bool,", "", false)]
#[case::an_added_case("enum phase { pending,", "enum phase { more, pending,", false)]
#[case::a_changed_type("exit-code: s32", "exit-code: u32", false)]
#[case::a_renamed_field("unschedulable: option<string>", "unscheduled: option<string>", false)]
fn a_change_that_breaks_hosts_is_found(#[case] old: &str, #[case] new: &str, #[case] runs: bool) {
    let changed = tempfile::tempdir().unwrap();
    let mut is_there = false;
    for file in ["pods.wit", "world.wit", "deps/app/app.wit", "deps/clocks/clocks.wit"] {
        let text = fs::read_to_string(Path::new(WORKSPACE).join("wit").join(file)).unwrap();
        is_there |= text.contains(old);
        let path = changed.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replacen(old, new, usize::from(!old.is_empty()))).unwrap();
    }
    assert!(is_there, "wit/ does not contain {old:?}: change this case");
    let plugin = plugin_of(changed.path());
    for version in published() {
        assert_eq!(runs_in_host_of(&version, &plugin), runs);
    }
}

/// One build is the embedded plugin, which is built in the workspace's own folder; the other is made here.
#[test]
fn two_builds_in_different_folders_are_the_same() {
    if env::var_os("HOPS_K8S_PLUGIN").is_some() {
        return println!("skipped: HOPS_K8S_PLUGIN names the plugin");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    for part in ["Cargo.toml", "Cargo.lock", "plugin", "host", "wit", "tests"] {
        copy(&Path::new(WORKSPACE).join(part), &elsewhere.path().join(part));
    }
    let built = component::build(env!("CARGO").as_ref(), elsewhere.path(), &elsewhere.path().join("target")).unwrap();
    assert!(built == EMBEDDED, "{} bytes and {} bytes", built.len(), EMBEDDED.len());
}

/// A published crate carries the component, since whoever builds it need not have a target for it.
#[test]
fn the_packed_component_is_that_of_the_source() {
    let packed = Path::new(WORKSPACE).join("host/k8s.wasm");
    if env::var_os("UPDATE_COMPONENT").is_some() {
        fs::write(&packed, EMBEDDED).unwrap();
    }
    let rustc = Command::new("rustc").arg("--version").output().unwrap().stdout;
    let oldest = concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"), ".");
    if !rustc.starts_with(oldest.as_bytes()) || env::var_os("HOPS_K8S_PLUGIN").is_some() {
        return println!("skipped: host/k8s.wasm is built with {oldest}*");
    }
    assert!(
        fs::read(&packed).unwrap() == EMBEDDED,
        "host/k8s.wasm is out of date: run `make component`, and commit it"
    );
}

/// Copies the sources in a folder.
fn copy(from: &Path, to: &Path) {
    let is_source = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!(ending, Some("rs" | "toml" | "lock" | "wit" | "json"))
    };
    if from.is_dir() && !from.ends_with("node_modules") && !from.ends_with(".venv") {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else if is_source(from) {
        fs::copy(from, to).unwrap();
    }
}
