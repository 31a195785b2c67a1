//! The policy file: what calls on this host may ask for.

use super::yaml;
use crate::exit::CommandError;
use hops_k8s::policy::{Patterns, Policy, Quantity};
use serde::{Deserialize, Deserializer};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

/// The file. It allows nothing that it does not name. A key without a value is a mistake, so there is no null.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    #[serde(deserialize_with = "patterns")]
    namespaces: Option<Patterns>,
    #[serde(deserialize_with = "patterns")]
    images: Option<Patterns>,
    require_digest: bool,
    #[serde(deserialize_with = "quantity")]
    max_cpu: Option<Quantity>,
    #[serde(deserialize_with = "quantity")]
    max_memory: Option<Quantity>,
    #[serde(deserialize_with = "duration")]
    max_timeout: Option<Duration>,
    #[serde(deserialize_with = "quantity")]
    max_input_bytes: Option<Quantity>,
    #[serde(deserialize_with = "quantity")]
    max_result_bytes: Option<Quantity>,
    #[serde(deserialize_with = "count")]
    max_calls: Option<NonZeroUsize>,
    #[serde(deserialize_with = "count")]
    max_calls_per_namespace: Option<NonZeroUsize>,
    allow: Vec<Allowed>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Allowed {
    Env,
    ServiceAccount,
    ImagePullSecrets,
    NodeSelector,
}

/// The policy in a file; the default policy without one.
pub(crate) fn load(path: Option<&Path>) -> Result<Policy, CommandError> {
    let Some(path) = path else { return Ok(Policy::default()) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        CommandError::usage(format!(
            "the policy {} cannot be read: {error}; name another with --policy",
            path.display()
        ))
    })?;
    parse(path, &text).map_err(CommandError::usage)
}

fn parse(path: &Path, text: &str) -> Result<Policy, String> {
    let file: File = yaml::parse(path, text)?;
    let most = Policy::default();
    // The default is the most that the plugin and the queue can handle.
    let bytes = |key: &str, asked: Option<Quantity>, most: u64| match asked {
        Some(asked) if asked.bytes() > most => {
            Err(format!("{}: {key} is {asked}, and may be {most} at most; lower it", path.display()))
        }
        Some(asked) => Ok(asked.bytes()),
        None => Ok(most),
    };
    let mut policy = Policy::default();
    policy.max_input_bytes = bytes("max-input-bytes", file.max_input_bytes, most.max_input_bytes)?;
    policy.max_result_bytes = bytes("max-result-bytes", file.max_result_bytes, most.max_result_bytes)?;
    policy.namespaces = file.namespaces;
    policy.images = file.images;
    policy.require_digest = file.require_digest;
    policy.max_cpu = file.max_cpu;
    policy.max_memory = file.max_memory;
    policy.max_timeout = file.max_timeout;
    policy.max_calls = file.max_calls;
    policy.max_calls_per_namespace = file.max_calls_per_namespace;
    policy.env = file.allow.contains(&Allowed::Env);
    policy.service_account = file.allow.contains(&Allowed::ServiceAccount);
    policy.image_pull_secrets = file.allow.contains(&Allowed::ImagePullSecrets);
    policy.node_selector = file.allow.contains(&Allowed::NodeSelector);
    Ok(policy)
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Patterns>, D::Error> {
    let globs = Vec::<String>::deserialize(deserializer)?;
    Patterns::new(&globs).map(Some).map_err(serde::de::Error::custom)
}

fn quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Quantity>, D::Error> {
    yaml::text(deserializer, Quantity::parse, "a Kubernetes quantity such as 2 or 512Mi")
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let parse = |text: &str| humantime::parse_duration(text).ok().filter(|time| *time >= Duration::from_secs(1));
    yaml::text(deserializer, parse, "a duration of at least a second, such as 1h")
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroUsize>, D::Error> {
    yaml::text(deserializer, |text| text.parse().ok(), "a number of calls from 1 on")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn parsed(text: &str) -> Result<String, String> {
        parse(Path::new("/p.yaml"), text).map(|policy| policy.to_string())
    }

    const LIMITS: &str = "inputs ≤ 16777216 bytes, result ≤ 8388608 bytes";

    #[rstest]
    #[case::empty("", &format!("any namespace, any image, {LIMITS}"))]
    #[case::none_at_all("namespaces: []\nimages: []\n", &format!("namespaces none, images none, {LIMITS}"))]
    #[case::all(
        "namespaces: [team-*, ci]\nimages:\n- ghcr.io/acme/**\nrequire-digest: true\nmax-cpu: 1.5\nmax-memory: 4Gi\n\
         max-timeout: 90m\nmax-input-bytes: 1Mi\nmax-result-bytes: 1000\nmax-calls: 20\nmax-calls-per-namespace: 5\n\
         allow: [node-selector, env, service-account, image-pull-secrets]\n",
        "namespaces team-*, ci, images ghcr.io/acme/** by digest, CPU ≤ 1.5, memory ≤ 4Gi, time ≤ 1h 30m, calls ≤ 20, \
         calls in a namespace ≤ 5, inputs ≤ 1048576 bytes, result ≤ 1000 bytes, env allowed, service-account allowed, \
         image-pull-secrets allowed, node-selector allowed"
    )]
    fn a_policy_is_what_its_file_says(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(parsed(text).unwrap(), expected);
    }

    #[rstest]
    #[case("max-calls: 1\nnamespace: [a]", "2:1: unknown key \"namespace\", did you mean \"namespaces\"?")]
    #[case("gerbil: 1", "1:1: unknown key \"gerbil\"; known are namespaces, images, require-digest, ")]
    #[case("allow: [env, service_acount]", "1:14: unknown value \"service_acount\", did you mean \"service-account\"?")]
    #[case("allow: [gerbil]", "1:9: unknown value \"gerbil\"; known are env, service-account, ")]
    #[case("allow: env", "1:")]
    #[case("namespaces: a", "1:")]
    #[case("namespaces: ['[a']", "1:")]
    #[case("max-cpu: lots", "1:1: expected a Kubernetes quantity such as 2 or 512Mi, found ")]
    #[case("max-cpu: -1", "1:1: expected a Kubernetes quantity such as 2 or 512Mi, found ")]
    #[case("namespaces:", "1:")]
    #[case("images: # none yet", "1:")]
    #[case("max-memory:", "1:")]
    #[case("max-timeout: 1", "1:1: expected a duration of at least a second, such as 1h, found ")]
    #[case("max-timeout: 10ms", "1:1: expected a duration of at least a second, such as 1h, found ")]
    #[case("max-calls: 0", "1:1: expected a number of calls from 1 on, found ")]
    #[case("max-calls: 1\nmax-calls: 2", "2:1: ")]
    #[case("max-result-bytes: 9Mi", " max-result-bytes is 9Mi, and may be 8388608 at most; lower it")]
    fn an_error_has_a_position(#[case] text: &str, #[case] expected: &str) {
        let error = parsed(text).unwrap_err();
        assert!(error.starts_with(&format!("/p.yaml:{expected}")), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    /// Lines, most of them right.
    fn any_yaml() -> impl Strategy<Value = String> {
        let keys = ["namespaces", "images", "require-digest", "max-cpu", "max-timeout", "max-calls", "allow", "allow "];
        let values = ["[team-*, ci]", "['[a', '**']", "true", "1.5", "512Mi", "90m", "20", "[env]", "~", "&a [*a]", ""];
        let of = |texts: &[&str]| prop::sample::select(texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let line = (of(&keys), prop_oneof![6 => of(&values), 1 => any::<String>()]);
        prop::collection::vec(line.prop_map(|(key, value)| format!("{key}: {value}\n")), 0..5)
            .prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_in_one_line(text in prop_oneof![any::<String>(), any_yaml()]) {
            match parsed(&text) {
                Ok(policy) => prop_assert!(policy.contains("result ≤ "), "{policy}"),
                Err(error) => {
                    prop_assert!(error.starts_with("/p.yaml"), "{error}");
                    prop_assert_eq!(error.lines().count(), 1, "{}", error);
                }
            }
        }
    }
}
