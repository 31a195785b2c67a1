use super::*;
use crate::pods::File;
use rstest::rstest;

/// What a call gets that asks for nothing special.
fn spec() -> PodSpec {
    PodSpec {
        namespace: "default".into(),
        image: "bash:5".into(),
        command: vec![],
        args: vec![],
        env: env::ALL.map(|name| (name.into(), "/a".into())).to_vec(),
        cpu: "250m".into(),
        memory: "128Mi".into(),
        input_dir: "/input".into(),
        input_files: vec![],
        output_dir: "/output".into(),
        lifetime_ms: 1000,
        keep: false,
        service_account: None,
        image_pull_secrets: vec![],
        node_selector: vec![],
    }
}

/// One that allows nothing beyond the plain call.
fn policy(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = Policy { env: false, ..Policy::default() };
    change(&mut policy);
    policy
}

fn patterns(globs: &[&str]) -> Option<Patterns> {
    Some(Patterns::new(globs).unwrap())
}

type Ask = fn(&mut PodSpec);
type Rule = fn(&mut Policy);

#[rstest]
#[case::namespace(
    |policy: &mut Policy| policy.namespaces = patterns(&["team-*", "ci"]),
    |spec: &mut PodSpec| spec.namespace = "team-a".into(),
    |spec: &mut PodSpec| spec.namespace = "prod".into(),
    "the namespace \"prod\" is none of this host's namespaces (team-*, ci); choose one that is"
)]
#[case::image(
    |policy: &mut Policy| policy.images = patterns(&["docker.io/library/*"]),
    |spec: &mut PodSpec| spec.image = format!("bash@sha256:{}", "0".repeat(64)),
    |spec: &mut PodSpec| spec.image = "acme/bash:5".into(),
    "the image \"acme/bash:5\" is from docker.io/acme/bash, which is none of this host's images (docker.io/library/*); use one that is"
)]
#[case::service_account(
    |policy: &mut Policy| policy.namespaces = patterns(&["**"]),
    |_: &mut PodSpec| {},
    |spec: &mut PodSpec| spec.service_account = Some("s".into()),
    "this host does not allow service_account (s); leave it out, or have its policy allow service-account"
)]
#[case::digest(
    |policy: &mut Policy| policy.require_digest = true,
    |spec: &mut PodSpec| spec.image = format!("bash:5@sha256:{}", "0".repeat(64)),
    |_: &mut PodSpec| {},
    "the image \"bash:5\" has no digest, and this host requires one (require-digest); write it as docker.io/library/bash@sha256:…"
)]
#[case::cpu(
    |policy: &mut Policy| policy.max_cpu = Quantity::parse("1.5"),
    |spec: &mut PodSpec| spec.cpu = "1500m".into(),
    |spec: &mut PodSpec| spec.cpu = "1501m".into(),
    "the cpu \"1501m\" is not within this host's max-cpu of 1.5; ask for less"
)]
#[case::no_cpu_limit(
    |policy: &mut Policy| policy.max_cpu = Quantity::parse("1.5"),
    |_: &mut PodSpec| {},
    |spec: &mut PodSpec| spec.cpu = "0".into(),
    "the cpu \"0\" is not within this host's max-cpu of 1.5; ask for less"
)]
#[case::memory(
    |policy: &mut Policy| policy.max_memory = Quantity::parse("1Gi"),
    |spec: &mut PodSpec| spec.memory = "1024Mi".into(),
    |spec: &mut PodSpec| spec.memory = "1e99".into(),
    "the memory \"1e99\" is not within this host's max-memory of 1Gi; ask for less"
)]
#[case::env(
    |policy: &mut Policy| policy.env = false,
    |_: &mut PodSpec| {},
    |spec: &mut PodSpec| spec.env.push(("A".into(), "secret".into())),
    "this host does not allow env (A); leave it out, or have its policy allow env"
)]
#[case::image_pull_secrets(
    |policy: &mut Policy| policy.env = true,
    |spec: &mut PodSpec| spec.env.push(("A".into(), "b".into())),
    |spec: &mut PodSpec| spec.image_pull_secrets = vec!["a".into(), "b".into()],
    "this host does not allow image_pull_secrets (a, b); leave it out, or have its policy allow image-pull-secrets"
)]
#[case::node_selector(
    |policy: &mut Policy| policy.service_account = true,
    |spec: &mut PodSpec| spec.service_account = Some("s".into()),
    |spec: &mut PodSpec| spec.node_selector = vec![("disk".into(), "ssd".into())],
    "this host does not allow node_selector (disk=ssd); leave it out, or have its policy allow node-selector"
)]
fn a_rule_lets_through_what_it_names(#[case] rule: Rule, #[case] good: Ask, #[case] bad: Ask, #[case] why: &str) {
    let policy = policy(rule);
    let (mut allowed, mut denied) = (spec(), spec());
    good(&mut allowed);
    bad(&mut denied);
    assert_eq!(policy.check(&allowed), Ok(()));
    assert_eq!(policy.check(&denied), Err(Error::PolicyDenied(why.into())));
}

#[rstest]
#[case(
    "EVIL/tool:1",
    "the image \"EVIL/tool:1\" is from EVIL/tool, which is none of this host's images (docker.io/**)"
)]
#[case(
    "DOCKER.IO/a",
    "the image \"DOCKER.IO/a\" is from DOCKER.IO/a, which is none of this host's images (docker.io/**)"
)]
#[case("docker.io:443/a", "the image \"docker.io:443/a\" is from docker.io:443/a, which is none of this host's images")]
#[case("/x", "the image \"/x\" is not the name of an image: ")]
#[case("docker.io/../ghcr.io/x", "the image \"docker.io/../ghcr.io/x\" is not the name of an image: ")]
#[case("@sha256:zz", "the image \"@sha256:zz\" is not the name of an image: ")]
#[case("docker.io/a_b.c:/d", "the image \"docker.io/a_b.c:/d\" is not the name of an image: ")]
fn what_no_pattern_means_is_denied(#[case] image: &str, #[case] why: &str) {
    let policy = policy(|policy| policy.images = patterns(&["docker.io/**"]));
    let spec = PodSpec { image: image.into(), ..spec() };
    let Err(Error::PolicyDenied(denial)) = policy.check(&spec) else { panic!("{image} is allowed") };
    assert!(denial.starts_with(why), "{denial}");
}

#[test]
fn the_id_of_an_image_is_not_a_name_in_a_repository() {
    let image = format!("sha256:{}", "0".repeat(64));
    for policy in
        [policy(|policy| policy.images = patterns(&["docker.io/**"])), policy(|policy| policy.require_digest = true)]
    {
        let denied = policy.check(&PodSpec { image: image.clone(), ..spec() });
        let why = format!(
            "the image \"{image}\" is not the name of an image: it is the id of an image; name it as in \
             docker.io/library/bash:5"
        );
        assert_eq!(denied, Err(Error::PolicyDenied(why)));
    }
}

#[test]
fn input_files_are_counted_together() {
    let policy = policy(|policy| policy.max_input_bytes = 3);
    let file = |content: &str| File { path: "a".into(), content: content.into() };
    let mut spec = spec();
    spec.input_files = vec![file("ab"), file("c")];
    assert_eq!(policy.check(&spec), Ok(()));
    spec.input_files.push(file("d"));
    assert_eq!(policy.check(&spec), Err(Error::TooLarge(Excess { size: 4, limit: 3 })));
}

#[test]
fn all_that_it_means_is_said_in_a_line() {
    let limits = "inputs ≤ 16777216 bytes, result ≤ 8388608 bytes";
    assert_eq!(Policy::default().to_string(), format!("any namespace, any image, {limits}, env allowed"));
    let policy = policy(|policy| {
        policy.namespaces = patterns(&["a", "b-*"]);
        policy.images = patterns(&[]);
        policy.require_digest = true;
        (policy.max_cpu, policy.max_memory) = (Quantity::parse("2"), Quantity::parse("4Gi"));
        policy.max_timeout = Some(Duration::from_secs(3600));
        (policy.max_calls, policy.max_calls_per_namespace) = (NonZeroUsize::new(9), NonZeroUsize::new(3));
        policy.service_account = true;
    });
    assert_eq!(
        policy.to_string(),
        format!(
            "namespaces a, b-*, images none by digest, CPU ≤ 2, memory ≤ 4Gi, time ≤ 1h, calls ≤ 9, calls in a \
             namespace ≤ 3, {limits}, service-account allowed"
        )
    );
}
