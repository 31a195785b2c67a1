//! The configuration file: options that need not be given at each start.

use super::yaml;
use crate::exit::CommandError;
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration file in its documented layout. [`Block`] is the layout of later releases of hops.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Config {
    pub port_forward: Option<bool>,
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    pub keyfile: Option<PathBuf>,
    pub plugin: Option<PathBuf>,
    pub policy: Option<PathBuf>,
    pub debug: Option<bool>,
    pub nats_url: Option<String>,
    pub account: Option<String>,
    #[serde(deserialize_with = "of_concurrency")]
    pub concurrency: Option<usize>,
    #[serde(deserialize_with = "yaml::duration")]
    pub drain: Option<Duration>,
    #[serde(deserialize_with = "yaml::duration")]
    pub max_wait: Option<Duration>,
    pub address: Option<SocketAddr>,
    pub token_file: Option<PathBuf>,
    k8s: Option<Block>,
    /// Whether `hops start server` runs the worker.
    #[serde(skip)]
    pub serve: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Block {
    serve: Option<bool>,
    portforward: Option<bool>,
    kubeconfig: Option<PathBuf>,
}

impl Config {
    /// Reads the file that is named, or else the one in the home directory if there is one.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, CommandError> {
        let path = match (named, in_home("config.yaml")) {
            (Some(path), _) => path.to_owned(),
            (None, Some(path)) => path,
            (None, None) => return Ok(Config::default()),
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Config::parse(&path, &text).map_err(CommandError::usage),
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => Ok(Config::default()),
            Err(error) => {
                Err(CommandError::usage(format!("the configuration {} cannot be read: {error}", path.display())))
            }
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let mut config: Config = yaml::parse(path, text)?;
        if let Some(block) = config.k8s.take() {
            config.serve = block.serve;
            config.port_forward = block.portforward.or(config.port_forward);
            config.kubeconfig = block.kubeconfig.or(config.kubeconfig);
        }
        let Config { kubeconfig, keyfile, policy, plugin, token_file, .. } = &mut config;
        for named in [kubeconfig, keyfile, policy, plugin, token_file].into_iter().flatten() {
            *named = resolve(path, named);
        }
        Ok(config)
    }
}

/// A file in the folder of hops in the home directory.
pub(crate) fn in_home(name: &str) -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".hops").join(name))
}

/// Resolves a path in the file. It is relative to the file's folder, so it does not depend on where hops is started.
fn resolve(config: &Path, path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => config.parent().unwrap_or(Path::new("")).join(path),
    }
}

/// A number of calls at a time.
pub(crate) fn concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "expected a number from 1 to 10000".into())
}

fn of_concurrency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let number = u64::deserialize(deserializer)?;
    let checked = concurrency(&number.to_string());
    checked.map(Some).map_err(|_| D::Error::invalid_value(Unexpected::Unsigned(number), &"a number from 1 to 10000"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/hops/config.yaml"), text)
    }

    #[test]
    fn the_documented_layout_is_read() {
        let config = parse(
            "port-forward: true\nkubeconfig: /k/config\nkeyfile: key\npolicy: p.yaml\nplugin: p.wasm\ndebug: true\ndrain: 1m 5s\nmax-wait: 1h\nconcurrency: 7\n\
             address: '[::1]:80'",
        )
        .unwrap();
        assert_eq!((config.port_forward, config.debug, config.serve), (Some(true), Some(true), None));
        assert_eq!(config.kubeconfig.unwrap(), Path::new("/k/config"));
        assert_eq!(config.keyfile.unwrap(), Path::new("/etc/hops/key"));
        assert_eq!(config.policy.unwrap(), Path::new("/etc/hops/p.yaml"));
        assert_eq!(config.plugin.unwrap(), Path::new("/etc/hops/p.wasm"));
        assert_eq!((config.drain, config.concurrency), (Some(Duration::from_secs(65)), Some(7)));
        assert_eq!(config.max_wait, Some(Duration::from_secs(3600)));
        assert_eq!(config.address.unwrap().port(), 80);
    }

    #[test]
    fn the_layout_of_later_releases_is_read() {
        let config = parse("k8s:\n  serve: false\n  portforward: true\n  kubeconfig: /k/config\n").unwrap();
        assert_eq!((config.port_forward, config.serve), (Some(true), Some(false)));
        assert_eq!(config.kubeconfig.unwrap(), Path::new("/k/config"));
    }

    #[rstest]
    fn a_file_without_keys_is_not_an_error(#[values("", "# nothing\n", "{}", "k8s:\n", "kubeconfig:\n")] text: &str) {
        let config = parse(text).unwrap();
        assert!(config.kubeconfig.is_none() && config.port_forward.is_none());
    }

    #[rstest]
    #[case("debug: true\nkubconfig: a", "2:1: unknown key \"kubconfig\", did you mean \"kubeconfig\"?")]
    #[case("portforward: true", "1:1: unknown key \"portforward\", did you mean \"port-forward\"?")]
    #[case("k8s:\n  port-forward: true", "2:3: unknown key \"port-forward\", did you mean \"portforward\"?")]
    #[case("k8s:\n  gerbil: 1", "2:3: unknown key \"gerbil\"; known are serve, portforward, kubeconfig")]
    #[case("port-forward: maybe", "1:15: invalid boolean")]
    #[case("debug: [1]", "1:8: ")]
    #[case("debug: true\nconcurrency: 0", "2:1: expected a number from 1 to 10000, found ")]
    #[case("debug: true\ndrain: soon", "2:1: expected a duration such as 20s, found ")]
    #[case("address: here", "1:10: ")]
    #[case("debug: true\ndebug: true", "2:1: ")]
    #[case("a: [", "1:")]
    fn an_error_has_a_position(#[case] text: &str, #[case] expected: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(&format!("/etc/hops/config.yaml:{expected}")), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    /// Lines of YAML, some of them of a configuration.
    fn any_yaml() -> impl Strategy<Value = String> {
        let keys = ["port-forward", "kubeconfig", "concurrency", "drain", "address", "k8s", "  serve", "- a", "<<"];
        let values = [
            "true",
            "1",
            "-1",
            "1e999",
            "0x1F",
            "20s",
            "[::1]:80",
            "~",
            "~/a",
            "&a [*a]",
            "*a",
            "!!binary x",
            "|",
            "{",
            "'",
            "\0",
        ];
        let key = prop_oneof![4 => prop::sample::select(keys.to_vec()).prop_map(String::from), 1 => any::<String>()];
        let value =
            prop_oneof![4 => prop::sample::select(values.to_vec()).prop_map(String::from), 1 => any::<String>()];
        let end = prop::sample::select(vec!["\n", "\r\n", "\n\n", " #\n", "\n---\n"]);
        let line = (key, value, end).prop_map(|(key, value, end)| format!("{key}: {value}{end}"));
        (prop::bool::ANY, prop::collection::vec(line, 0..4))
            .prop_map(|(mark, lines)| if mark { "\u{feff}".to_owned() } else { String::new() } + &lines.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_in_one_line(text in prop_oneof![any::<String>(), any_yaml()]) {
            if let Err(error) = parse(&text) {
                prop_assert!(error.starts_with("/etc/hops/config.yaml"), "{error}");
                prop_assert_eq!(error.lines().count(), 1, "{}", error);
            }
        }
    }

    #[rstest]
    #[case::arrays("[")]
    #[case::objects("{a: ")]
    #[case::lists("- ")]
    #[case::keys("? ")]
    #[case::aliases_of_aliases("a: &a [*a, *a]\n")]
    fn deep_nesting_is_an_error_and_not_a_crash(#[case] open: &str) {
        parse(&open.repeat(100_000)).unwrap_err();
    }
}
