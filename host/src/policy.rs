//! What the host lets plugins do, whatever they ask for.

mod patterns;
mod slots;

pub use crate::pods::Quantity;
pub use patterns::{PatternError, Patterns};

pub(crate) use slots::Slot;

use crate::pods::reference::{Reference, excerpt};
use crate::pods::{Error, Excess, PodSpec};
use crate::shared::env;
use slots::{Most, Slots};
use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Limits and permissions, enforced below the plugin.
///
/// A policy also counts the pods of its calls, for the two limits of calls; clones share the count.
///
/// ```
/// use hops_k8s::policy::{Patterns, Policy, Quantity};
/// use std::num::NonZeroUsize;
///
/// let mut policy = Policy::default();
/// policy.images = Some(Patterns::new(["docker.io/library/*"])?);
/// policy.max_memory = Quantity::parse("1Gi");
/// policy.max_calls = NonZeroUsize::new(100);
/// # Ok::<(), hops_k8s::policy::PatternError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// The namespaces that pods may be in; `None` for any.
    pub namespaces: Option<Patterns>,
    /// The repositories that images may come from, with their registries; `None` for any.
    pub images: Option<Patterns>,
    /// Whether images must be named by digest.
    pub require_digest: bool,
    /// The most CPU that a call may ask for; `None` for any.
    pub max_cpu: Option<Quantity>,
    /// The most memory that a call may ask for; `None` for any.
    pub max_memory: Option<Quantity>,
    /// How long a pod may live, whatever its call asks for; `None` for as long as the call asks.
    pub max_timeout: Option<Duration>,
    /// The most bytes that a call's input files may have in all.
    pub max_input_bytes: u64,
    /// The most bytes that a result file may have.
    pub max_result_bytes: u64,
    /// The most lines of a log that a plugin may read at once.
    pub max_log_lines: u32,
    /// The most calls that have a pod at a time; `None` for any number. The others wait, and their time to start does not
    /// run meanwhile.
    pub max_calls: Option<NonZeroUsize>,
    /// The same, for calls with pods in one namespace.
    pub max_calls_per_namespace: Option<NonZeroUsize>,
    /// Whether calls may set environment variables.
    pub env: bool,
    /// Whether calls may choose a service account.
    pub service_account: bool,
    /// Whether calls may name secrets to pull images with.
    pub image_pull_secrets: bool,
    /// Whether calls may choose nodes.
    pub node_selector: bool,
    slots: Slots,
}

impl Default for Policy {
    /// 16 MiB of input files, 8 MiB of result, 1,000 lines of log; environment variables, but no service account, pull
    /// secrets or node selector.
    fn default() -> Self {
        Policy {
            namespaces: None,
            images: None,
            require_digest: false,
            max_cpu: None,
            max_memory: None,
            max_timeout: None,
            max_input_bytes: 16 * 1024 * 1024,
            max_result_bytes: 8 * 1024 * 1024,
            max_log_lines: 1000,
            max_calls: None,
            max_calls_per_namespace: None,
            env: true,
            service_account: false,
            image_pull_secrets: false,
            node_selector: false,
            slots: Slots::default(),
        }
    }
}

impl Policy {
    /// This policy in the place of another: it goes on with the other's count, and its limits of calls hold for the calls
    /// that wait under the other.
    #[must_use]
    pub fn in_place_of(mut self, other: &Policy) -> Self {
        self.slots = other.slots.clone();
        self.slots.replace(Most::of(&self));
        self
    }

    /// Waits until a call may have a pod in this namespace.
    pub(crate) async fn enter(&self, namespace: &str) -> Slot {
        self.slots.enter(namespace, Most::of(self)).await
    }

    pub(crate) fn check(&self, spec: &PodSpec) -> Result<(), Error> {
        self.denial(spec).map_or(Ok(()), |why| Err(Error::PolicyDenied(why)))?;
        let size = spec.input_files.iter().map(|file| file.content.len() as u64).sum();
        if size > self.max_input_bytes {
            return Err(Error::TooLarge(Excess { size, limit: self.max_input_bytes }));
        }
        Ok(())
    }

    /// Why the host does not run this: what was asked for, the rule, and what to do.
    fn denial(&self, spec: &PodSpec) -> Option<String> {
        let PodSpec { namespace, image, cpu, memory, .. } = spec;
        if let Some(allowed) = self.namespaces.as_ref().filter(|allowed| !allowed.admit(namespace)) {
            return Some(format!(
                "the namespace {namespace:?} is none of this host's namespaces ({allowed}); choose one that is"
            ));
        }
        if let Some(why) = self.denial_of_image(image) {
            return Some(why);
        }
        for (what, asked, most) in [("cpu", cpu, &self.max_cpu), ("memory", memory, &self.max_memory)] {
            if let Some(most) = most.as_ref().filter(|most| !most.admits(asked)) {
                return Some(format!(
                    "the {what} {asked:?} is not within this host's max-{what} of {most}; ask for less"
                ));
            }
        }
        let env: Vec<&str> = spec.env.iter().map(|(name, _)| &**name).filter(|name| !env::ALL.contains(name)).collect();
        let nodes: Vec<String> = spec.node_selector.iter().map(|(label, value)| format!("{label}={value}")).collect();
        let asked = [
            ("env", env.join(", "), self.env),
            ("service_account", spec.service_account.clone().unwrap_or_default(), self.service_account),
            ("image_pull_secrets", spec.image_pull_secrets.join(", "), self.image_pull_secrets),
            ("node_selector", nodes.join(", "), self.node_selector),
        ];
        let (name, asked, _) = asked.iter().find(|(_, asked, allowed)| !asked.is_empty() && !allowed)?;
        let key = name.replace('_', "-");
        Some(format!("this host does not allow {name} ({asked}); leave it out, or have its policy allow {key}"))
    }

    fn denial_of_image(&self, image: &str) -> Option<String> {
        if self.images.is_none() && !self.require_digest {
            return None;
        }
        let name = excerpt(image);
        let reference = match Reference::parse(image) {
            Ok(reference) => reference,
            Err(why) => {
                return Some(format!(
                    "the image {name:?} is not the name of an image: {why}; name it as in docker.io/library/bash:5"
                ));
            }
        };
        let repository = reference.repository();
        if let Some(allowed) = self.images.as_ref().filter(|allowed| !allowed.admit(&repository)) {
            return Some(format!(
                "the image {name:?} is from {repository}, which is none of this host's images ({allowed}); use one that is"
            ));
        }
        (self.require_digest && reference.digest().is_none()).then(|| {
            format!(
                "the image {name:?} has no digest, and this host requires one (require-digest); write it as \
                 {repository}@sha256:…"
            )
        })
    }
}

/// What it allows, in a line.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |what: &str, names: &Option<Patterns>| match names {
            None => format!("any {what}"),
            Some(names) => format!("{what}s {names}"),
        };
        let digest = if self.require_digest { " by digest" } else { "" };
        write!(f, "{}, {}{digest}", names("namespace", &self.namespaces), names("image", &self.images))?;
        let time = self.max_timeout.map(humantime::format_duration);
        let most: [(&str, Option<&dyn fmt::Display>); 5] = [
            ("CPU", self.max_cpu.as_ref().map(|most| most as _)),
            ("memory", self.max_memory.as_ref().map(|most| most as _)),
            ("time", time.as_ref().map(|most| most as _)),
            ("calls", self.max_calls.as_ref().map(|most| most as _)),
            ("calls in a namespace", self.max_calls_per_namespace.as_ref().map(|most| most as _)),
        ];
        for (what, most) in most {
            if let Some(most) = most {
                write!(f, ", {what} ≤ {most}")?;
            }
        }
        write!(f, ", inputs ≤ {} bytes, result ≤ {} bytes", self.max_input_bytes, self.max_result_bytes)?;
        let allowed = [
            ("env", self.env),
            ("service-account", self.service_account),
            ("image-pull-secrets", self.image_pull_secrets),
            ("node-selector", self.node_selector),
        ];
        for (name, _) in allowed.iter().filter(|(_, allowed)| *allowed) {
            write!(f, ", {name} allowed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
