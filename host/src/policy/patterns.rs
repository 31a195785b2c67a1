//! Names that a policy allows.

use globset::{GlobBuilder, GlobMatcher};
use std::fmt;

/// Globs of names: `*` matches anything without a `/`, `**` anything.
#[derive(Clone, Debug)]
pub struct Patterns(Vec<GlobMatcher>);

/// A text is not a glob.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PatternError(#[from] globset::Error);

impl Patterns {
    /// The names that at least one of these globs matches. Without globs, no name.
    ///
    /// # Errors
    /// One of them is not a glob.
    pub fn new<S: AsRef<str>>(globs: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let matcher = |glob: S| {
            let glob = GlobBuilder::new(glob.as_ref()).literal_separator(true).build()?;
            Ok(glob.compile_matcher())
        };
        globs.into_iter().map(matcher).collect::<Result<_, _>>().map(Patterns)
    }

    /// Whether a glob matches.
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

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
}
