//! Names that a policy allows.

use globset::{GlobBuilder, GlobMatcher};
use std::borrow::Cow;
use std::fmt;

/// Globs of names: `*` stands for anything but `/`, `**` for anything.
#[derive(Clone, Debug)]
pub struct Patterns(Vec<GlobMatcher>);

/// A text is no glob.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PatternError(#[from] globset::Error);

impl Patterns {
    /// The names that one of these globs matches. Without any, it is none.
    ///
    /// # Errors
    /// One of them is no glob.
    pub fn new<S: AsRef<str>>(globs: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let matcher = |glob: S| {
            let glob = GlobBuilder::new(glob.as_ref()).literal_separator(true).build()?;
            Ok(glob.compile_matcher())
        };
        globs.into_iter().map(matcher).collect::<Result<_, _>>().map(Patterns)
    }

    pub(super) fn admit(&self, name: &str) -> bool {
        self.0.iter().any(|glob| glob.is_match(name))
    }
}

/// The globs, as they were written.
impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let globs: Vec<&str> = self.0.iter().map(|glob| glob.glob().glob()).collect();
        f.write_str(if globs.is_empty() { "none" } else { "" })?;
        f.write_str(&globs.join(", "))
    }
}

/// Where an image comes from, in full and without tag and digest: `docker.io/library/bash` for `bash:5`.
pub(super) fn repository(image: &str) -> Cow<'_, str> {
    let image = image.split('@').next().unwrap_or(image);
    let name = image.rsplit('/').next().unwrap_or(image);
    let tag = name.find(':').map_or(0, |at| name.len() - at);
    let image = image.get(..image.len() - tag).unwrap_or(image);
    match image.split_once('/') {
        None => format!("docker.io/library/{image}").into(),
        Some(("docker.io" | "index.docker.io", rest)) if !rest.contains('/') => {
            format!("docker.io/library/{rest}").into()
        }
        Some(("index.docker.io", rest)) => format!("docker.io/{rest}").into(),
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => image.into(),
        Some(_) => format!("docker.io/{image}").into(),
    }
}

/// Whether an image is named by its digest, so that it can be no other.
pub(super) fn has_digest(image: &str) -> bool {
    let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
    digest.is_some_and(|digest| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("bash", "docker.io/library/bash")]
    #[case("bash:5", "docker.io/library/bash")]
    #[case("bash:5@sha256:0a", "docker.io/library/bash")]
    #[case("docker.io/bash", "docker.io/library/bash")]
    #[case("index.docker.io/bash:5", "docker.io/library/bash")]
    #[case("index.docker.io/acme/tool", "docker.io/acme/tool")]
    #[case("acme/tool:1", "docker.io/acme/tool")]
    #[case("ghcr.io/acme/tools/a:1", "ghcr.io/acme/tools/a")]
    #[case("localhost/a", "localhost/a")]
    #[case("localhost:5000/a", "localhost:5000/a")]
    #[case("host:5000/a:1", "host:5000/a")]
    fn a_repository_is_named_in_full(#[case] image: &str, #[case] expected: &str) {
        assert_eq!(repository(image), expected);
    }

    #[rstest]
    #[case("docker.io/library/*", "docker.io/library/bash", true)]
    #[case("docker.io/library/*", "docker.io/library/a/b", false)]
    #[case("docker.io/library/*", "docker.io/library", false)]
    #[case("ghcr.io/acme/**", "ghcr.io/acme/a/b", true)]
    #[case("ghcr.io/acme/**", "ghcr.io/acme/a", true)]
    #[case("ghcr.io/acme/**", "ghcr.io/acmeevil/a", false)]
    #[case("ghcr.io/acme/**", "evil.io/ghcr.io/acme/a", false)]
    #[case("ghcr.io/acme/*", "ghcr-io/acme/a", false)]
    #[case("**", "ghcr.io/acme/a", true)]
    #[case("team-*", "team-a", true)]
    #[case("team-*", "Team-a", false)]
    #[case("team", "team-a", false)]
    fn a_star_ends_at_a_slash(#[case] glob: &str, #[case] name: &str, #[case] expected: bool) {
        assert_eq!(Patterns::new([glob]).unwrap().admit(name), expected);
    }

    #[rstest]
    #[case("a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", true)]
    #[case("a@sha256:0123", false)]
    #[case("a:sha256", false)]
    fn a_digest_is_whole(#[case] image: &str, #[case] expected: bool) {
        assert_eq!(has_digest(image), expected);
    }
}
