//! References to images, in the grammar of the container runtimes.
//!
//! The grammar is that of the Go module `github.com/distribution/reference`, with its `ParseNormalizedNamed`, which
//! Docker, Podman, containerd and the kubelet use. Two kinds of text are refused that the module takes for a reference:
//! - an image's id, such as `sha256:` and 64 digits. The runtimes run whatever image on the machine has it.
//! - a first part that the module takes for a registry although it cannot be a host name, such as `a_b.c/d`. The runtimes
//!   do not agree on what that is.

use std::borrow::Cow;
use std::fmt;

/// The registry of names without one.
pub(crate) const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const DEFAULT_TAG: &str = "latest";
/// The longest path and tag, in bytes.
const MOST_PATH: usize = 255;
const MOST_TAG: usize = 128;
/// The algorithms of digests, with the number of their hexadecimal digits.
const ALGORITHMS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// A reference to an image, in full: `docker.io/library/bash:5` for `bash:5`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    domain: &'a str,
    path: Cow<'a, str>,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

/// Why a text is not a reference to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReferenceError {
    Empty,
    ImageId,
    /// With the text before the first slash.
    Domain(String),
    /// With the part of the path.
    Component(String),
    /// With the length of the path.
    PathTooLong(usize),
    /// With the text after the colon.
    Tag(String),
    /// With the text after the `@`.
    Digest(String),
}

impl<'a> Reference<'a> {
    /// Reads a reference.
    pub(crate) fn parse(text: &'a str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if is_lower_hex(text, 64) || is_digest(text) {
            return Err(ReferenceError::ImageId);
        }
        let (domain, rest) = split_domain(text);
        if !is_domain(domain) {
            return Err(ReferenceError::Domain(excerpt(domain)));
        }
        // Neither a path nor a tag has an `@`, and a path has no colon.
        let (rest, digest) = split(rest, '@');
        let (path, tag) = split(rest, ':');
        if let Some(component) = path.split('/').find(|component| !is_component(component)) {
            return Err(ReferenceError::Component(excerpt(component)));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag(excerpt(tag)));
        }
        if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
            return Err(ReferenceError::Digest(excerpt(digest)));
        }
        let path = match domain {
            DEFAULT_DOMAIN if !path.contains('/') => Cow::Owned(format!("library/{path}")),
            _ => Cow::Borrowed(path),
        };
        if path.len() > MOST_PATH {
            return Err(ReferenceError::PathTooLong(path.len()));
        }
        Ok(Reference { domain, path, tag, digest })
    }

    /// The registry: a host name with or without a port.
    pub(crate) fn domain(&self) -> &'a str {
        self.domain
    }

    /// The registry and the path in it, without tag and digest.
    pub(crate) fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The digest, with its algorithm.
    pub(crate) fn digest(&self) -> Option<&'a str> {
        self.digest
    }
}

/// The reference in full. A tag beside a digest is left out, as the runtimes ignore it.
impl fmt::Display for Reference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        match (self.digest, self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, tag) => write!(f, ":{}", tag.unwrap_or(DEFAULT_TAG)),
        }
    }
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReferenceError::Empty => f.write_str("it is empty"),
            ReferenceError::ImageId => f.write_str("it is the id of an image"),
            ReferenceError::Domain(domain) => write!(f, "{domain:?} cannot be the host name of a registry"),
            ReferenceError::Component(component) => write!(
                f,
                "{component:?} cannot be a part of a name, which has lower-case letters and digits, and between them '.', \
                 '_', '__' or dashes"
            ),
            ReferenceError::PathTooLong(length) => {
                write!(f, "the name has {length} characters, more than the {MOST_PATH} that it can have")
            }
            ReferenceError::Tag(tag) => write!(
                f,
                "{tag:?} cannot be a tag, which has up to {MOST_TAG} letters, digits, '_', '.' and dashes, and begins with \
                 none of the last two"
            ),
            ReferenceError::Digest(digest) => {
                write!(f, "{digest:?} cannot be a digest, which is \"sha256:\" and 64 hexadecimal digits in lower case")
            }
        }
    }
}

/// The registry of a name, and the rest. The first part is a registry if it cannot be part of a path, or is `localhost`.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_DEFAULT_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((domain, rest))
            if domain == "localhost"
                || domain.contains(['.', ':'])
                || domain.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (domain, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

/// What is before and after a character.
fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// A host name, an IPv4 address, or an IPv6 address in brackets; with or without a port.
fn is_domain(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').unwrap_or_default();
            (!address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'), port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (host.split('.').all(is_label), port)
        }
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// A part of a host name.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A part of a path: words of lower-case letters and digits, with separators between them.
fn is_component(text: &str) -> bool {
    let is_in_word = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    text.starts_with(is_in_word)
        && text.ends_with(is_in_word)
        && text
            .split(is_in_word)
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_in_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MOST_TAG
        && text.bytes().next().is_some_and(is_in_word)
        && text.bytes().all(|byte| is_in_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let (algorithm, digits) = text.split_once(':').unwrap_or_default();
    ALGORITHMS.iter().any(|(name, length)| *name == algorithm && is_lower_hex(digits, *length))
}

fn is_lower_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// As much of a text as a message can show.
pub(crate) fn excerpt(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "…",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Reads a reference in which `$` stands for 64 hexadecimal digits, and `*` for 240 letters.
    fn parse(text: &str) -> Result<String, ReferenceError> {
        let text = text.replace('$', SHA256).replace('*', &"x".repeat(240));
        Reference::parse(&text)
            .map(|reference| reference.to_string().replace(SHA256, "$").replace(&"x".repeat(240), "*"))
    }

    // The results of ParseDockerRef in version 0.6.0 of the Go module.
    #[rstest]
    #[case("bash", "docker.io/library/bash:latest")]
    #[case("bash:5", "docker.io/library/bash:5")]
    #[case("bash@sha256:$", "docker.io/library/bash@sha256:$")]
    #[case("bash:5@sha256:$", "docker.io/library/bash@sha256:$")]
    #[case("bash@sha512:$$", "docker.io/library/bash@sha512:$$")]
    #[case("acme/tool", "docker.io/acme/tool:latest")]
    #[case("acme/tools/a:1", "docker.io/acme/tools/a:1")]
    #[case("docker.io/bash", "docker.io/library/bash:latest")]
    #[case("docker.io/acme/tool", "docker.io/acme/tool:latest")]
    #[case("index.docker.io/bash:5", "docker.io/library/bash:5")]
    #[case("index.docker.io/acme/tool", "docker.io/acme/tool:latest")]
    #[case("DOCKER.IO/bash", "DOCKER.IO/bash:latest")]
    #[case("docker.io", "docker.io/library/docker.io:latest")]
    #[case("ghcr.io/acme/tools/a:1", "ghcr.io/acme/tools/a:1")]
    #[case("localhost/a", "localhost/a:latest")]
    #[case("localhost", "docker.io/library/localhost:latest")]
    #[case("localhost:5000", "docker.io/library/localhost:5000")]
    #[case("localhost:5000/a", "localhost:5000/a:latest")]
    #[case("host:5000/a:1", "host:5000/a:1")]
    #[case("127.0.0.1:80/a", "127.0.0.1:80/a:latest")]
    #[case("[::1]/a", "[::1]/a:latest")]
    #[case("[FE80::1]:5000/a:1", "[FE80::1]:5000/a:1")]
    #[case("xn--bcher-kva.example/a", "xn--bcher-kva.example/a:latest")]
    #[case("EVIL/tool:1", "EVIL/tool:1")]
    #[case("Evil/tool/a", "Evil/tool/a:latest")]
    #[case("a--b.c/d", "a--b.c/d:latest")]
    #[case("a/b.c_d__e---f", "docker.io/a/b.c_d__e---f:latest")]
    #[case("a:_.-A", "docker.io/library/a:_.-A")]
    #[case("library/$", "docker.io/library/$:latest")]
    #[case("$:1", "docker.io/library/$:1")]
    #[case("$/a", "docker.io/$/a:latest")]
    #[case("localhost/*/xxxxxxxxxxxxxx", "localhost/*/xxxxxxxxxxxxxx:latest")]
    fn a_reference_is_completed_as_the_runtimes_do(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(parse(text).as_deref(), Ok(expected));
    }

    // The Go module refuses them too, but for those that are marked.
    #[rstest]
    #[case("", ReferenceError::Empty)]
    #[case("$", ReferenceError::ImageId)]
    #[case::stricter("sha256:$", ReferenceError::ImageId)]
    #[case::stricter("sha512:$$", ReferenceError::ImageId)]
    #[case("/x", ReferenceError::Component("".into()))]
    #[case("//x", ReferenceError::Component("".into()))]
    #[case("a//b", ReferenceError::Component("".into()))]
    #[case("bash/", ReferenceError::Component("".into()))]
    #[case("docker.io/", ReferenceError::Component("".into()))]
    #[case(":5", ReferenceError::Component("".into()))]
    #[case("@sha256:zz", ReferenceError::Component("".into()))]
    #[case("docker.io/../ghcr.io/x", ReferenceError::Component("..".into()))]
    #[case("../x", ReferenceError::Domain("..".into()))]
    #[case("./x", ReferenceError::Domain(".".into()))]
    #[case("a/./b", ReferenceError::Component(".".into()))]
    #[case("Bash:5", ReferenceError::Component("Bash".into()))]
    #[case("docker.io/Bash", ReferenceError::Component("Bash".into()))]
    #[case("a/B/c", ReferenceError::Component("B".into()))]
    #[case("a_/b", ReferenceError::Component("a_".into()))]
    #[case("-a", ReferenceError::Component("-a".into()))]
    #[case("a..b", ReferenceError::Component("a..b".into()))]
    #[case("a___b", ReferenceError::Component("a___b".into()))]
    #[case("a.-b", ReferenceError::Component("a.-b".into()))]
    #[case("a b", ReferenceError::Component("a b".into()))]
    #[case(" bash", ReferenceError::Component(" bash".into()))]
    #[case("bash\n", ReferenceError::Component("bash\n".into()))]
    #[case("b\u{e4}sh", ReferenceError::Component("b\u{e4}sh".into()))]
    #[case::a_cyrillic_letter("d\u{43e}cker.io/bash", ReferenceError::Domain("d\u{43e}cker.io".into()))]
    #[case::a_fraction_slash("docker.io\u{2044}bash", ReferenceError::Component("docker.io\u{2044}bash".into()))]
    #[case("http://ghcr.io/a", ReferenceError::Domain("http:".into()))]
    #[case("user@ghcr.io/a", ReferenceError::Domain("user@ghcr.io".into()))]
    #[case("host:/a", ReferenceError::Domain("host:".into()))]
    #[case("host:80a/a", ReferenceError::Domain("host:80a".into()))]
    #[case("host:1:2/a", ReferenceError::Domain("host:1:2".into()))]
    #[case("docker.io./bash", ReferenceError::Domain("docker.io.".into()))]
    #[case("-a.b/c", ReferenceError::Domain("-a.b".into()))]
    #[case("EVIL_/tool", ReferenceError::Domain("EVIL_".into()))]
    #[case("[]/a", ReferenceError::Component("[]".into()))]
    #[case("[::1/a", ReferenceError::Domain("[::1".into()))]
    #[case("[::1%25eth0]/a", ReferenceError::Domain("[::1%25eth0]".into()))]
    #[case("[::1]x/a", ReferenceError::Domain("[::1]x".into()))]
    #[case("b\u{fc}cher.example/a", ReferenceError::Domain("b\u{fc}cher.example".into()))]
    #[case::stricter("a_b.c/d", ReferenceError::Domain("a_b.c".into()))]
    #[case::stricter("a.b_c__d---e/f", ReferenceError::Domain("a.b_c__d---e".into()))]
    #[case::stricter("a__b.c/d@sha256:$", ReferenceError::Domain("a__b.c".into()))]
    #[case("a:", ReferenceError::Tag("".into()))]
    #[case("a:.b", ReferenceError::Tag(".b".into()))]
    #[case("a:b:c", ReferenceError::Tag("b:c".into()))]
    #[case("a:\u{e4}", ReferenceError::Tag("\u{e4}".into()))]
    #[case("a@", ReferenceError::Digest("".into()))]
    #[case("a@sha256:0123", ReferenceError::Digest("sha256:0123".into()))]
    #[case("a@SHA256:$", ReferenceError::Digest(format!("SHA256:{SHA256}")))]
    #[case("a@sha512:$", ReferenceError::Digest(format!("sha512:{SHA256}")))]
    #[case("a@md5:$", ReferenceError::Digest(format!("md5:{SHA256}")))]
    #[case("a@sha256:$\n", ReferenceError::Digest(format!("sha256:{SHA256}\n")))]
    #[case("localhost/*/xxxxxxxxxxxxxxx", ReferenceError::PathTooLong(256))]
    #[case("*xxxxxxxx", ReferenceError::PathTooLong(256))]
    fn what_is_not_a_reference_is_refused(#[case] text: &str, #[case] expected: ReferenceError) {
        assert_eq!(parse(text), Err(expected));
    }

    #[rstest]
    #[case(128, true)]
    #[case(129, false)]
    fn a_tag_has_a_length(#[case] length: usize, #[case] is_tag: bool) {
        assert_eq!(parse(&format!("a:{}", "b".repeat(length))).is_ok(), is_tag);
    }

    #[test]
    fn an_upper_case_digest_is_refused() {
        let digest = format!("sha256:{}", SHA256.to_uppercase());
        assert_eq!(parse(&format!("a@{digest}")), Err(ReferenceError::Digest(digest)));
    }

    #[test]
    fn a_message_shows_the_beginning_of_a_long_text() {
        let message = parse(&"ä".repeat(100_000)).unwrap_err().to_string();
        assert!(message.contains(&format!("\"{}…\"", "ä".repeat(200))), "{message}");
        assert!(message.len() < 1000, "{}", message.len());
    }
}
