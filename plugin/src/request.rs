//! Checked inputs → the pod that the host is asked for.

use crate::bindings::hiphops::k8s::pods::{File, PodSpec};
use crate::inputs::Inputs;
use crate::progress::Deadlines;
use crate::shared::env;
use std::time::Duration;

/// How long a container may run if its inputs set no `timeout`.
const MAX_RUN: Duration = Duration::from_secs(24 * 60 * 60);
/// How much longer than its deadlines the pod lives, so that the call ends it and not the cluster.
const SLACK: Duration = Duration::from_secs(5 * 60);

/// How long the container may take.
pub fn deadlines(inputs: &Inputs) -> Deadlines {
    Deadlines { start: inputs.start_timeout, run: inputs.timeout.unwrap_or(MAX_RUN) }
}

/// The pod that the inputs ask for.
pub fn pod_spec(inputs: Inputs) -> PodSpec {
    let Deadlines { start, run } = deadlines(&inputs);
    let lifetime = start.saturating_add(run).saturating_add(SLACK);
    let mut variables = inputs.env;
    variables.extend([
        (env::INPUT_DIR.into(), inputs.in_dir.clone()),
        (env::OUTPUT_DIR.into(), inputs.out_dir.clone()),
        (env::RESULT_PATH.into(), inputs.out_path),
    ]);
    PodSpec {
        namespace: inputs.namespace,
        image: inputs.image,
        command: inputs.command,
        args: inputs.args,
        env: variables,
        cpu: inputs.cpu,
        memory: inputs.memory,
        input_dir: inputs.in_dir,
        input_files: inputs
            .in_files
            .into_iter()
            .map(|(path, content)| File { path, content: content.into_bytes() })
            .collect(),
        output_dir: inputs.out_dir,
        lifetime_ms: lifetime.as_millis().try_into().unwrap_or(u64::MAX),
        keep: inputs.skip_cleanup,
        service_account: inputs.service_account,
        image_pull_secrets: inputs.image_pull_secrets,
        node_selector: inputs.node_selector,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::parse;

    #[test]
    fn the_container_finds_the_paths_of_its_files_in_its_environment() {
        let inputs = parse(r#"{"image":"a","in_dir":"/in/","out_dir":"/out","out_path":"./x/y.json","env":{"A":"b"}}"#);
        let spec = pod_spec(inputs.unwrap());
        let env: Vec<(&str, &str)> = spec.env.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            env,
            [
                ("A", "b"),
                ("HIPHOPS_INPUT_DIR", "/in"),
                ("HIPHOPS_OUTPUT_DIR", "/out"),
                ("HIPHOPS_RESULT_PATH", "x/y.json")
            ]
        );
    }

    #[test]
    fn a_pod_lives_five_minutes_longer_than_its_deadlines() {
        let limited = pod_spec(parse(r#"{"image":"a","timeout":"10s","start_timeout":"30s"}"#).unwrap());
        assert_eq!(limited.lifetime_ms, (10 + 30 + 300) * 1000);
        let unlimited = pod_spec(parse(r#"{"image":"a"}"#).unwrap());
        assert_eq!(unlimited.lifetime_ms, (24 * 3600 + 120 + 300) * 1000);
    }
}
