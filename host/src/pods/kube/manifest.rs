//! What is asked for → the Kubernetes objects to create.

use super::KubeOptions;
use crate::pods::{Error, File, PodSpec};
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

const OUTPUT_VOLUME: &str = "hiphops";
const INPUT_VOLUME: &str = "hiphops-input";
/// Where the result server has the output.
const SERVED_DIR: &str = "/output";
/// What a ConfigMap can hold; the API server allows no more.
const CONFIG_MAP_BYTES: usize = 1024 * 1024;

/// The pod of a call.
pub(super) fn pod(name: &str, uuid: &str, spec: &PodSpec, files: &ConfigMaps, options: &KubeOptions) -> k8s::Pod {
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
        metadata: metadata(name, uuid, spec.keep),
        spec: Some(k8s::PodSpec {
            // The user's container first: the node starts them in this order.
            containers: vec![main(spec, mounts), sidecar(options)],
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

fn main(spec: &PodSpec, mounts: Vec<k8s::VolumeMount>) -> k8s::Container {
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
        // The end of a failed container's log comes with its status, at no request.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Default::default()
    }
}

/// The result server. It may read files of every owner, and nothing else that a process without rights may not.
fn sidecar(options: &KubeOptions) -> k8s::Container {
    let (cpu, memory) = (&options.server_cpu, &options.server_memory);
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
        security_context: Some(k8s::SecurityContext {
            run_as_user: Some(0),
            read_only_root_filesystem: Some(true),
            allow_privilege_escalation: Some(false),
            capabilities: Some(k8s::Capabilities {
                drop: Some(vec!["ALL".into()]),
                // To read what the user's container wrote as whoever it runs as, with whatever mode.
                add: Some(vec!["DAC_OVERRIDE".into()]),
            }),
            seccomp_profile: Some(k8s::SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The ConfigMaps of a pod's input files: as many as their sizes need, behind one volume.
pub(super) struct ConfigMaps<'a> {
    pod: String,
    /// The files of each.
    maps: Vec<Vec<&'a File>>,
}

impl<'a> ConfigMaps<'a> {
    /// Fits the files into as few ConfigMaps as is simple.
    pub(super) fn plan(pod: &str, files: &'a [File]) -> Result<Self, Error> {
        let mut maps: Vec<(usize, Vec<&File>)> = vec![];
        for file in files {
            let size = file.content.len();
            if size > CONFIG_MAP_BYTES {
                return Err(Error::Invalid(format!(
                    "in_files[{:?}] is {size} bytes, but in a cluster a single input file can have at most \
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
        Ok(ConfigMaps { pod: pod.into(), maps: maps.into_iter().map(|(_, files)| files).collect() })
    }

    fn name(&self, index: usize) -> String {
        format!("{}-{index}", self.pod)
    }

    fn volume(&self) -> Option<k8s::Volume> {
        let source = |(index, files): (usize, &Vec<&File>)| k8s::VolumeProjection {
            config_map: Some(k8s::ConfigMapProjection {
                name: self.name(index),
                items: Some(
                    files
                        .iter()
                        .enumerate()
                        .map(|(number, file)| k8s::KeyToPath { key: key(number), path: file.path.clone(), mode: None })
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
                default_mode: None,
            }),
            ..Default::default()
        })
    }

    /// The objects, owned by the pod with this uid.
    pub(super) fn manifests(&self, uuid: &str, pod_uid: &str) -> impl Iterator<Item = k8s::ConfigMap> {
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
                    ..metadata(&self.name(index), uuid, false)
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

/// Names of files are none that a ConfigMap's keys could have.
fn key(number: usize) -> String {
    format!("f{number}")
}

/// Text that JSON does not blow up: base64 is shorter for the rest.
fn readable(content: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(content).ok()?;
    (!text.contains(|c: char| c.is_ascii_control() && !c.is_ascii_whitespace())).then_some(text)
}

fn metadata(name: &str, uuid: &str, keep: bool) -> ObjectMeta {
    let labels = [
        ("app.kubernetes.io/managed-by", "hops-k8s"),
        ("hiphops-io/for", "workflow-step"),
        ("hiphops-io/sequence_id", uuid),
        ("hiphops-io/skip_cleanup", if keep { "true" } else { "false" }),
        ("hiphops-io/uuid", uuid),
    ];
    ObjectMeta {
        name: Some(name.into()),
        labels: Some(labels.map(|(name, value)| (name.into(), value.into())).into()),
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
    k8s::EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}

/// An empty list asks for nothing.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
