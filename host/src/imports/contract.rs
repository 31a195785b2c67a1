//! Rules of the contract that its types cannot express. The embedded plugin obeys them; they are checked all the same,
//! because backends join these paths to ones of this machine.

use crate::pods::{Error, PodSpec};

/// The most that a spec may have beside the contents of its files. Kubernetes accepts no larger object.
const MOST_BYTES: usize = 1 << 20;
/// What each item of a list counts for, beside its text.
const ITEM: usize = 32;

/// Checks a pod's spec.
pub(super) fn check(spec: &PodSpec) -> Result<(), Error> {
    let size = size_beside_files(spec);
    if size > MOST_BYTES {
        return Err(Error::Invalid(format!(
            "the description of the pod has {size} bytes, more than the {MOST_BYTES} that a pod can have; put long texts \
             into input files"
        )));
    }
    check_dir("the input directory", &spec.input_dir)?;
    check_dir("the output directory", &spec.output_dir)?;
    spec.input_files.iter().try_for_each(|file| check_path("the input file", &file.path))
}

/// Checks a path that is relative to a directory of the pod.
pub(super) fn check_path(what: &str, path: &str) -> Result<(), Error> {
    if path.is_empty() || path.starts_with('/') || leads_up(path) {
        return Err(Error::Invalid(format!(
            "{what} {path:?} is not below its directory; give a relative path without .."
        )));
    }
    Ok(())
}

fn check_dir(what: &str, path: &str) -> Result<(), Error> {
    if !path.starts_with('/') || leads_up(path) {
        return Err(Error::Invalid(format!("{what} {path:?} is not an absolute path without ..; give one")));
    }
    Ok(())
}

fn leads_up(path: &str) -> bool {
    path.split('/').any(|segment| segment == "..")
}

/// The size of all that a spec holds, in bytes.
pub(super) fn size(spec: &PodSpec) -> usize {
    size_beside_files(spec) + spec.input_files.iter().map(|file| file.content.len()).sum::<usize>()
}

fn size_beside_files(spec: &PodSpec) -> usize {
    let single = [&spec.namespace, &spec.image, &spec.cpu, &spec.memory, &spec.input_dir, &spec.output_dir];
    let lists = spec.command.iter().chain(&spec.args).chain(&spec.image_pull_secrets);
    let pairs = spec.env.iter().chain(&spec.node_selector);
    let files = spec.input_files.iter().map(|file| &file.path);
    let texts = single.into_iter().chain(&spec.service_account).chain(lists).chain(files);
    texts.map(|text| text.len() + ITEM).sum::<usize>()
        + pairs.map(|(name, value)| name.len() + value.len() + ITEM).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a", true)]
    #[case("a/b..c/..d", true)]
    #[case("", false)]
    #[case("/a", false)]
    #[case("..", false)]
    #[case("a/../../b", false)]
    fn a_file_is_below_its_directory(#[case] path: &str, #[case] valid: bool) {
        assert_eq!(check_path("the file", path).is_ok(), valid);
    }

    #[rstest]
    #[case("/", true)]
    #[case("/a/b", true)]
    #[case("", false)]
    #[case("a", false)]
    #[case("/a/../..", false)]
    fn a_directory_has_an_absolute_path(#[case] path: &str, #[case] valid: bool) {
        assert_eq!(check_dir("the directory", path).is_ok(), valid);
    }
}
