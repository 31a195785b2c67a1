//! Finds out whether a cluster allows what calls need.

use super::KubePods;
use super::api::{Action, within};
use super::fetch::Route;
use crate::pods::{Cause, ContainerState, Error, Identity, Phase, Pod, PodSpec, PodStatus, Pods, Rule};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest that an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// The longest that the pod may take to start.
const START: Duration = Duration::from_secs(60);
/// The lifetime of the pod, in case this process ends before it deletes the pod.
const LIFETIME_MS: u64 = 3 * 60 * 1000;
const RBAC: &str = "rbac.authorization.k8s.io";

/// Why a trial pod failed.
#[derive(Debug)]
pub enum PodTrouble {
    /// A request failed.
    Failed(Step, Error),
    /// The result server cannot start, for the reason that the cluster gives.
    NotStarted(Cause),
    /// The result server has not started within a minute. The cluster may give no reason.
    Late(Cause),
}

/// A step in the life of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Creating it.
    Create,
    /// Following its status.
    Watch,
    /// Reading a file from its result server.
    Read,
    /// Deleting it.
    Delete,
}

impl KubePods {
    /// The image that every pod needs beside the user's.
    pub fn server_image(&self) -> &str {
        &self.inner.options.server_image
    }

    /// Whether files are read through the API server, not from the pods' own addresses.
    pub fn forwards_ports(&self) -> bool {
        self.inner.route == Route::PortForward
    }

    /// The rules that calls in this namespace need.
    pub fn needs(&self, namespace: &str) -> Vec<Rule> {
        let mut needs = vec![];
        let mut need = |resource: &str, verbs: &[&str]| {
            let rule =
                |verb: &&str| Rule { verb: (*verb).into(), resource: resource.into(), namespace: namespace.into() };
            needs.extend(verbs.iter().map(rule));
        };
        need("pods", &["create", "get", "list", "watch", "delete"]);
        need("configmaps", &["create"]);
        need("pods/log", &["get"]);
        if self.forwards_ports() {
            // A connection begins with a GET request. Since Kubernetes 1.35 it needs the right to create as well.
            need("pods/portforward", &["get", "create"]);
        }
        needs
    }

    /// The version of Kubernetes. The request is sent once and may take a few seconds.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn version(&self) -> Result<String, Error> {
        let version = self.ask("get", "version", self.inner.client.apiserver_version()).await?;
        Ok(version.git_version)
    }

    /// Whether the cluster allows this to the user of this client. A rule without a namespace is about all namespaces.
    ///
    /// # Errors
    /// Why the cluster gives no answer.
    pub async fn allows(&self, rule: &Rule) -> Result<bool, Error> {
        let (resource, subresource) = match rule.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (&*rule.resource, None),
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(rule.verb.clone()),
                    resource: Some(resource.into()),
                    subresource: subresource.map(Into::into),
                    namespace: Some(rule.namespace.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let (reviews, params) = (Api::all(self.inner.client.clone()), PostParams::default());
        let answer = self.ask("create", "selfsubjectaccessreviews", reviews.create(&params, &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// A Role and a RoleBinding that give the user of this client these rules and no others.
    ///
    /// # Errors
    /// The cluster does not say who the user is.
    pub async fn role(&self, namespace: &str, rules: &[Rule]) -> Result<(Role, RoleBinding), Error> {
        let (reviews, params) = (Api::all(self.inner.client.clone()), PostParams::default());
        let review = SelfSubjectReview::default();
        let answer = self.ask("create", "selfsubjectreviews", reviews.create(&params, &review)).await?;
        let user = answer.status.and_then(|status| status.user_info?.username);
        let user = user.ok_or_else(|| Error::Other("the API server does not say who the user is".into()))?;
        Ok(role(namespace, rules, &user))
    }

    /// Runs a pod with the result server in both containers, reads from it as from any pod, and deletes it.
    ///
    /// # Errors
    /// What went wrong first. The pod is then deleted in the background: wait for [`Pods::drained`].
    pub async fn try_pod(&self, namespace: &str) -> Result<(), PodTrouble> {
        let spec = PodSpec {
            cpu: "10m".into(),
            memory: "16Mi".into(),
            lifetime_ms: LIFETIME_MS,
            ..PodSpec::new(namespace, self.server_image())
        };
        let failed = |step| move |error| PodTrouble::Failed(step, error);
        let mut pod = self.create(spec, Identity::random()).await.map_err(failed(Step::Create))?;
        started(&mut *pod).await?;
        // There is no such file, but the answer shows that reading works.
        pod.read_file("hops-check", 1024).await.map_err(failed(Step::Read))?;
        pod.delete().await.map_err(failed(Step::Delete))
    }

    /// Sends a request, once.
    async fn ask<T>(
        &self,
        verb: &'static str,
        resource: &'static str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let answer = within(ANSWER, request).await;
        let action = Action { verb, resource, namespace: String::new() };
        answer.map_err(|error| self.inner.server.explain(error, &action))
    }
}

/// Waits until the result server runs.
async fn started(pod: &mut dyn Pod) -> Result<(), PodTrouble> {
    let mut last = None;
    let running = async {
        loop {
            let status = pod.changed().await.map_err(|error| PodTrouble::Failed(Step::Watch, error))?;
            match &status.sidecar {
                Some(ContainerState::Running) => return Ok(()),
                Some(ContainerState::Waiting(cause)) if is_trouble(cause) => {
                    return Err(PodTrouble::NotStarted(cause.clone()));
                }
                Some(ContainerState::Terminated(end)) => {
                    let message = format!("it ended with exit code {}: {}", end.exit_code, end.message);
                    return Err(PodTrouble::NotStarted(Cause::new(&end.reason, message)));
                }
                _ if status.deleted => {
                    return Err(PodTrouble::NotStarted(Cause::new("PodDeleted", "somebody deleted the pod")));
                }
                _ if status.phase == Phase::Failed => return Err(PodTrouble::NotStarted(status.cause)),
                _ => last = Some(status),
            }
        }
    };
    match tokio::time::timeout(START, running).await {
        Ok(outcome) => outcome,
        Err(_) => Err(PodTrouble::Late(last.map_or_else(Cause::default, awaited))),
    }
}

/// Whether a container waits for a reason that is worth reporting at once.
fn is_trouble(cause: &Cause) -> bool {
    !matches!(&*cause.reason, "" | "ContainerCreating" | "PodInitializing")
}

/// What a pod waits for that does not start.
fn awaited(status: PodStatus) -> Cause {
    match (status.unschedulable, status.sidecar) {
        (Some(message), _) => Cause::new("Unschedulable", message),
        (None, Some(ContainerState::Waiting(cause))) => cause,
        (None, _) => status.cause,
    }
}

fn role(namespace: &str, rules: &[Rule], user: &str) -> (Role, RoleBinding) {
    let mut verbs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for rule in rules {
        verbs.entry(&rule.resource).or_default().push(rule.verb.clone());
    }
    // The name depends on the rules and the user, so applying the Role takes nothing away that was granted before.
    let hash = Sha256::digest(format!("{user} {verbs:?}"));
    let suffix: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let metadata =
        ObjectMeta { name: Some(format!("hops-{suffix}")), namespace: Some(namespace.into()), ..ObjectMeta::default() };
    let rules = verbs.into_iter().map(|(resource, verbs)| PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.into()]),
        verbs,
        ..PolicyRule::default()
    });
    let role = Role { metadata: metadata.clone(), rules: Some(rules.collect()) };
    let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let subject = match account {
        Some((namespace, name)) => Subject {
            kind: "ServiceAccount".into(),
            name: name.into(),
            namespace: Some(namespace.into()),
            ..Subject::default()
        },
        None => Subject { api_group: Some(RBAC.into()), kind: "User".into(), name: user.into(), ..Subject::default() },
    };
    // From JSON: the type of `api_group` depends on the version of Kubernetes that the program chose.
    let role_ref = json!({"apiGroup": RBAC, "kind": "Role", "name": metadata.name});
    let role_ref: RoleRef = serde_json::from_value(role_ref).unwrap_or_default();
    (role, RoleBinding { metadata, role_ref, subjects: Some(vec![subject]) })
}
