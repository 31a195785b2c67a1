//! Translates a pod-spec into the Kubernetes objects to create.

use super::KubeOptions;
use crate::pods::{Error, File, Identity, PodSpec};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

/// The user's container.
pub(super) const MAIN: &str = "main";
/// The result server's container.
pub(super) const SIDECAR: &str = "hiphops-sidecar";
/// Selects the pods of this app.
pub(super) const SELECTOR: &str = "hiphops-io/for=workflow-step";
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "hops-k8s");
const SKIP_CLEANUP: &str = "hiphops-io/skip_cleanup";

const OUTPUT_VOLUME: &str = "hiphops";
const INPUT_VOLUME: &str = "hiphops-input";
/// Where the result server has the output.
const SERVED_DIR: &str = "/output";
/// The most that the API server lets a ConfigMap contain.
const CONFIG_MAP_BYTES: usize = 1024 * 1024;

/// The user that both containers run as in a restricted namespace: as the same user, the result server may read what the
/// user's container wrote. Their group is root's, because images that support any user expect that.
const RESTRICTED_UID: i64 = 65532;

/// The Pod Security Standard that a pod is built to meet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standard {
    /// The user's container runs as its image says, and the result server reads what it writes.
    Baseline,
    /// No container runs as root.
    Restricted,
}

/// The pod of a call.
pub(super) fn pod(
    identity: &Identity,
    spec: &PodSpec,
    files: &ConfigMaps,
    options: &KubeOptions,
    standard: Standard,
) -> k8s::Pod {
    let mut volumes = vec![k8s::Volume {
        name: OUTPUT_VOLUME.into(),
        empty_dir: Some(k8s::EmptyDirVolumeSource::default()),
        ..Default::default()
    }];
    let mut mounts = vec![mount(OUTPUT_VOLUME, &spec.output_dir, false)];
    if let Some(volume) = files.volume() {
        volumes.push(volume);
        mounts.push(mount(INPUT_VOLUME, &spec.input_dir, true));
    }
    let seconds = spec.lifetime_ms.div_ceil(1000).clamp(1, i32::MAX as u64);
    k8s::Pod {
        metadata: metadata(identity.name.clone(), identity, spec.keep),
        spec: Some(k8s::PodSpec {
            // The user's container first: the node starts them in this order.
            containers: vec![main(spec, mounts, standard), sidecar(options, standard)],
            volumes: Some(volumes),
            restart_policy: Some("Never".into()),
            active_deadline_seconds: i64::try_from(seconds).ok(),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            service_account_name: spec.service_account.clone(),
            image_pull_secrets: some(
                spec.image_pull_secrets.iter().map(|name| k8s::LocalObjectReference { name: name.clone() }).collect(),
            ),
            node_selector: (!spec.node_selector.is_empty()).then(|| spec.node_selector.iter().cloned().collect()),
            ..Default::default()
        }),
        status: None,
    }
}

fn main(spec: &PodSpec, mounts: Vec<k8s::VolumeMount>, standard: Standard) -> k8s::Container {
    // Kubernetes merges entries of one name by keeping the last, but warns about them.
    let env: BTreeMap<&str, &str> = spec.env.iter().map(|(name, value)| (&**name, &**value)).collect();
    k8s::Container {
        name: MAIN.into(),
        image: Some(spec.image.clone()),
        command: some(spec.command.clone()),
        args: some(spec.args.clone()),
        env: Some(env.into_iter().map(|(name, value)| variable(name, value)).collect()),
        resources: Some(resources((&spec.cpu, &spec.cpu), (&spec.memory, &spec.memory))),
        volume_mounts: Some(mounts),
        // The end of a failed container's log then comes with its status and costs no request.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        security_context: (standard == Standard::Restricted).then(unprivileged),
        ..Default::default()
    }
}

/// What the restricted standard demands of a container.
fn unprivileged() -> k8s::SecurityContext {
    k8s::SecurityContext {
        run_as_user: Some(RESTRICTED_UID),
        run_as_non_root: Some(true),
        allow_privilege_escalation: Some(false),
        capabilities: Some(k8s::Capabilities { drop: Some(vec!["ALL".into()]), ..Default::default() }),
        seccomp_profile: Some(k8s::SeccompProfile { type_: "RuntimeDefault".into(), ..Default::default() }),
        ..Default::default()
    }
}

/// The result server. Its only privilege is to read files of any owner. Under the restricted standard it has none.
fn sidecar(options: &KubeOptions, standard: Standard) -> k8s::Container {
    let (cpu, memory) = (&options.server_cpu, &options.server_memory);
    let reader = match standard {
        Standard::Restricted => unprivileged(),
        Standard::Baseline => k8s::SecurityContext {
            run_as_user: Some(0),
            run_as_non_root: None,
            capabilities: Some(k8s::Capabilities {
                drop: Some(vec!["ALL".into()]),
                // To read what the user's container wrote, whatever its user and the mode of the file.
                add: Some(vec!["DAC_OVERRIDE".into()]),
            }),
            ..unprivileged()
        },
    };
    k8s::Container {
        name: SIDECAR.into(),
        image: Some(options.server_image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        env: Some(vec![
            variable("PORT", &options.server_port.to_string()),
            variable("FOLDER", SERVED_DIR),
            variable("CORS", "false"),
        ]),
        ports: Some(vec![k8s::ContainerPort {
            name: Some("http".into()),
            container_port: options.server_port.into(),
            ..Default::default()
        }]),
        resources: Some(resources((&cpu.0, &cpu.1), (&memory.0, &memory.1))),
        volume_mounts: Some(vec![mount(OUTPUT_VOLUME, SERVED_DIR, true)]),
        security_context: Some(k8s::SecurityContext { read_only_root_filesystem: Some(true), ..reader }),
        ..Default::default()
    }
}

/// The ConfigMaps with a pod's input files, behind one volume.
pub(super) struct ConfigMaps<'a> {
    pod: String,
    /// The beginning of their names. It is new for each pod: a pod that is created anew under its old name must not get
    /// the ConfigMaps of the old one, which the cluster has yet to delete.
    prefix: String,
    /// The files in each.
    maps: Vec<Vec<&'a File>>,
}

impl<'a> ConfigMaps<'a> {
    /// Puts each file into the first ConfigMap that has room for it.
    pub(super) fn plan(pod: &str, files: &'a [File]) -> Result<Self, Error> {
        let mut maps: Vec<(usize, Vec<&File>)> = vec![];
        for file in files {
            let size = file.content.len();
            if size > CONFIG_MAP_BYTES {
                return Err(Error::Invalid(format!(
                    "input-files: {:?} has {size} bytes, but in a cluster a single file can have at most \
                     {CONFIG_MAP_BYTES} bytes (all of them together may have more); split it, or have the container fetch it",
                    file.path
                )));
            }
            match maps.iter_mut().find(|(used, _)| used + size <= CONFIG_MAP_BYTES) {
                Some((used, files)) => {
                    *used += size;
                    files.push(file);
                }
                None => maps.push((size, vec![file])),
            }
        }
        let nonce: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
        let maps = maps.into_iter().map(|(_, files)| files).collect();
        Ok(ConfigMaps { pod: pod.into(), prefix: format!("{pod}-{nonce}"), maps })
    }

    /// Uses the names that the pod itself refers to. An adopted pod refers to ConfigMaps of an earlier try.
    pub(super) fn rename(&mut self, pod: &k8s::Pod) {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let mut sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()?.first());
        let first = sources.find_map(|source| source.config_map.as_ref());
        if let Some(prefix) = first.and_then(|map| map.name.strip_suffix("-0")) {
            self.prefix = prefix.into();
        }
    }

    fn name(&self, index: usize) -> String {
        format!("{}-{index}", self.prefix)
    }

    fn volume(&self) -> Option<k8s::Volume> {
        let source = |(index, files): (usize, &Vec<&File>)| k8s::VolumeProjection {
            config_map: Some(k8s::ConfigMapProjection {
                name: self.name(index),
                items: Some(
                    files
                        .iter()
                        .enumerate()
                        .map(|(number, file)| k8s::KeyToPath {
                            key: key(number),
                            path: file.path.clone(),
                            ..Default::default()
                        })
                        .collect(),
                ),
                optional: None,
            }),
            ..Default::default()
        };
        (!self.maps.is_empty()).then(|| k8s::Volume {
            name: INPUT_VOLUME.into(),
            projected: Some(k8s::ProjectedVolumeSource {
                sources: Some(self.maps.iter().enumerate().map(source).collect()),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    /// The ConfigMaps, owned by the pod with this uid.
    pub(super) fn manifests(&self, identity: &Identity, pod_uid: &str) -> impl Iterator<Item = k8s::ConfigMap> {
        self.maps.iter().enumerate().map(move |(index, files)| {
            let mut map = k8s::ConfigMap {
                metadata: ObjectMeta {
                    owner_references: Some(vec![OwnerReference {
                        api_version: "v1".into(),
                        kind: "Pod".into(),
                        name: self.pod.clone(),
                        uid: pod_uid.into(),
                        controller: None,
                        block_owner_deletion: None,
                    }]),
                    ..metadata(self.name(index), identity, false)
                },
                immutable: Some(true),
                ..Default::default()
            };
            for (number, file) in files.iter().enumerate() {
                match readable(&file.content) {
                    Some(text) => {
                        map.data.get_or_insert_default().insert(key(number), text.into());
                    }
                    None => {
                        map.binary_data.get_or_insert_default().insert(key(number), ByteString(file.content.clone()));
                    }
                }
            }
            map
        })
    }
}

/// The key of a file. A ConfigMap allows fewer characters in keys than files have in their names.
fn key(number: usize) -> String {
    format!("f{number}")
}

/// The content as text, unless JSON would escape so much of it that base64 is shorter.
fn readable(content: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(content).ok()?;
    (!text.contains(|c: char| c.is_ascii_control() && !c.is_ascii_whitespace())).then_some(text)
}

/// Whether a pod has this identity.
pub(super) fn is_of(pod: &k8s::Pod, identity: &Identity) -> bool {
    let has = |all: &Option<BTreeMap<String, String>>, some: &BTreeMap<String, String>| {
        some.iter().all(|(name, value)| all.as_ref().and_then(|all| all.get(name)) == Some(value))
    };
    has(&pod.metadata.labels, &identity.labels) && has(&pod.metadata.annotations, &identity.annotations)
}

/// Selects the pods of hops with these labels, except for those that their calls asked to keep.
pub(super) fn selector(labels: &BTreeMap<String, String>) -> String {
    let labels = labels.iter().map(|(name, value)| (&**name, &**value));
    let all: Vec<String> =
        [MANAGED_BY, (SKIP_CLEANUP, "false")].into_iter().chain(labels).map(|(n, v)| format!("{n}={v}")).collect();
    all.join(",")
}

fn metadata(name: String, identity: &Identity, keep: bool) -> ObjectMeta {
    let labels = [MANAGED_BY, ("hiphops-io/for", "workflow-step"), (SKIP_CLEANUP, if keep { "true" } else { "false" })];
    let mut all = identity.labels.clone();
    all.extend(labels.map(|(name, value)| (name.into(), value.into())));
    ObjectMeta {
        name: Some(name),
        labels: Some(all),
        annotations: (!identity.annotations.is_empty()).then(|| identity.annotations.clone()),
        ..Default::default()
    }
}

fn resources(cpu: (&str, &str), memory: (&str, &str)) -> k8s::ResourceRequirements {
    let list = |cpu: &str, memory: &str| {
        Some(BTreeMap::from([("cpu".into(), Quantity(cpu.into())), ("memory".into(), Quantity(memory.into()))]))
    };
    k8s::ResourceRequirements { requests: list(cpu.0, memory.0), limits: list(cpu.1, memory.1), ..Default::default() }
}

fn mount(volume: &str, path: &str, read_only: bool) -> k8s::VolumeMount {
    k8s::VolumeMount { name: volume.into(), mount_path: path.into(), read_only: Some(read_only), ..Default::default() }
}

fn variable(name: &str, value: &str) -> k8s::EnvVar {
    k8s::EnvVar { name: name.into(), value: Some(value.into()), ..Default::default() }
}

/// `None` for an empty list.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
