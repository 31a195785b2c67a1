//! The invariants of `host/ARCHITECTURE.md` that a look at the sources can prove.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const HOST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../host");

/// The Rust files below a folder, sorted.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file's lines of code, without comments and without what follows its tests' heading.
fn code(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.filter(|line| !line.trim_start().starts_with("//")).map(Into::into).collect()
}

/// The words that follow `prefix` in a line.
fn words_after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).map(move |(at, _)| {
        let rest = &line[at + prefix.len()..];
        &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

/// The modules of a crate, and which others each imports.
fn imports(crate_src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources(crate_src) {
        let inside = file.strip_prefix(crate_src).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let of = modules.entry(module.clone()).or_default();
        for line in code(&file) {
            of.extend(words_after(&line, "crate::").filter(|word| *word != module).map(Into::into));
        }
    }
    modules
}

/// A module that reaches itself through its imports, if there is one.
fn circle(modules: &BTreeMap<String, BTreeSet<String>>) -> Option<&str> {
    modules.keys().map(|module| &**module).find(|module| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = vec![module];
        while let Some(next) = open.pop() {
            for import in modules.get(next).into_iter().flatten() {
                if import == module {
                    return true;
                }
                if reached.insert(import) {
                    open.push(import);
                }
            }
        }
        false
    })
}

#[test]
fn the_modules_of_the_library_and_of_the_command_import_in_one_direction() {
    for (crate_src, known) in [("src", "pods"), ("cli/src", "commands")] {
        let modules = imports(&Path::new(HOST).join(crate_src));
        assert!(!modules[known].is_empty(), "no import was found: {modules:?}");
        assert_eq!(circle(&modules), None, "{modules:#?}");
    }
}

#[test]
fn a_circle_of_imports_would_be_found() {
    let modules = |pairs: &[(&str, &str)]| {
        let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            modules.entry((*from).into()).or_default().insert((*to).into());
        }
        modules
    };
    assert_eq!(circle(&modules(&[("a", "b"), ("b", "c"), ("d", "c")])), None);
    assert_eq!(circle(&modules(&[("x", "a"), ("a", "b"), ("b", "c"), ("c", "a")])), Some("a"));
}

#[test]
fn the_tests_that_the_architecture_names_exist() {
    let page = fs::read_to_string(Path::new(HOST).join("ARCHITECTURE.md")).unwrap();
    let tests = page.lines().filter_map(|line| line.strip_suffix("` |")?.rsplit_once("| `")).map(|(_, test)| test);
    let mut count = 0;
    for test in tests {
        let (file, name) = test.split_once(": ").unwrap_or((test, ""));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        assert!(path.exists(), "{file} is not in tests/");
        let found = name.is_empty() || fs::read_to_string(&path).unwrap().contains(&format!("fn {name}("));
        assert!(found, "{file} has no test {name}");
        count += 1;
    }
    assert!(count > 5, "the table of invariants was not found");
}

#[test]
fn no_backend_imports_another() {
    let backends = ["engine", "kube", "memory", "process"];
    for backend in backends {
        let mut files = vec![Path::new(HOST).join(format!("src/pods/{backend}.rs"))];
        let folder = files[0].with_extension("");
        files.extend(if folder.is_dir() { sources(&folder) } else { vec![] });
        for file in files {
            for line in code(&file) {
                for other in backends.iter().filter(|other| **other != backend) {
                    let names_it =
                        words_after(&line, "pods::").chain(words_after(&line, "super::")).any(|word| word == *other);
                    assert!(!names_it, "{}: {line}", file.display());
                }
            }
        }
    }
}

#[test]
fn the_library_names_neither_inputs_of_the_app_nor_flags_of_the_command() {
    let inputs =
        ["in_files", "in_dir", "out_dir", "out_path", "skip_cleanup", "start_timeout", "k8s_run", "result.json"];
    // A label of the pods that older workers know, and the sandbox helper's own argument.
    let allowed = ["hiphops-io/skip_cleanup", "--hops-pod-helper", "systemctl --user"];
    for file in sources(&Path::new(HOST).join("src")) {
        for line in code(&file) {
            let line = allowed.iter().fold(line, |line, allowed| line.replace(allowed, ""));
            let input = inputs.iter().find(|input| line.contains(**input));
            assert_eq!(input, None, "{}: {line}", file.display());
            let flag =
                line.match_indices("--").find(|(at, _)| line[at + 2..].starts_with(|c: char| c.is_ascii_lowercase()));
            assert_eq!(flag, None, "{}: {line}", file.display());
        }
    }
}
