//! Calls on a real Docker or Podman: at the address in `DOCKER_HOST`, or on the usual sockets.

mod fake;
mod hostile;

use hops_k8s::event::{Event, Events};
use hops_k8s::plugin::CallCtx;
use hops_k8s::pods::engine::{EngineOptions, EnginePods};
use hops_k8s::pods::{ContainerState, Pods};
use hops_k8s::policy::Policy;
use hops_k8s_tests::cases::{self, Backend};
use hops_k8s_tests::{Document, call, call_with, plugin};
use rstest::rstest;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The engine, with a state directory of this test's own: the containers with its id are this test's.
struct Engine {
    pods: Arc<EnginePods>,
    state: TempDir,
}

impl Engine {
    async fn start() -> Self {
        let state = TempDir::new().unwrap();
        Engine { pods: connect(state.path()).await, state }
    }

    fn inputs(&self, more: Value) -> Value {
        let mut inputs = json!({"image": "bash:5-alpine3.18", "memory": "32Mi"});
        for (name, value) in more.as_object().unwrap() {
            inputs[name] = value.clone();
        }
        inputs
    }

    async fn call(&self, more: Value) -> Document {
        Document::parse(&call(self.pods.clone(), &self.inputs(more)).await.unwrap())
    }

    async fn bash(&self, script: &str) -> Document {
        self.call(json!({"command": ["bash", "-c", script]})).await
    }

    /// The ids of this test's containers.
    fn containers(&self) -> Vec<String> {
        containers(self.state.path())
    }

    /// Checks that nothing is left.
    async fn end(self) {
        self.pods.drained().await;
        assert_eq!(self.containers(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an engine"]
async fn every_case_means_what_it_means_elsewhere() {
    let engine = Engine::start().await;
    let description = engine.pods.description();
    assert!(description.starts_with("Docker Engine ") || description.starts_with("Podman "), "{description}");
    cases::check(Backend::Engine, engine.pods.clone(), &engine.inputs(json!({"cpu": "1"}))).await;
    engine.end().await;
}

/// As where the engine runs in a virtual machine, or where this process may not read its volumes.
#[test]
#[ignore = "needs an engine"]
fn every_case_is_the_same_where_volumes_are_out_of_sight() {
    let volumes = Path::new(docker(&["info", "--format", "{{.DockerRootDir}}"]).trim()).join("volumes");
    if std::fs::read_dir(&volumes).is_err() {
        println!("the volumes are out of sight already");
        return;
    }
    let script = r#"mount -t tmpfs none "$0" && exec "$1" --ignored --exact every_case_means_what_it_means_elsewhere"#;
    let test = std::env::current_exe().unwrap();
    let status = Command::new("unshare").args(["--mount", "sh", "-c", script]).arg(volumes).arg(test).status().unwrap();
    assert!(status.success());
}

async fn connect(state: &Path) -> Arc<EnginePods> {
    Arc::new(
        EnginePods::connect(EngineOptions::default().state_dir(state)).await.unwrap_or_else(|error| panic!("{error}")),
    )
}

fn containers(state: &Path) -> Vec<String> {
    let id = std::fs::read_to_string(state.join("id")).unwrap();
    docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &format!("label=hiphops-io/owner-directory={id}")])
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Runs the engine's own client.
fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker can be started");
    assert!(output.status.success(), "docker {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn until<T>(what: &str, mut is_so: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = is_so() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn a_command_takes_the_place_of_entry_point_and_arguments() {
    let engine = Engine::start().await;
    let script = "echo -n $# arguments > /output/result.json";
    let document = engine.call(json!({"command": ["sh", "/input/x.sh"], "in_files": {"x.sh": script}})).await;
    assert_eq!((document.error(), document.body()), ("", "0 arguments"));
    engine.end().await;
}

#[rstest]
#[case::link(
    "echo -n far > /output/x; mkdir /output/a; ln -s ../x /output/a/b; ln -s /output/a/b /output/result.json",
    "",
    "far"
)]
#[case::dangling_link("ln -s nowhere /output/result.json", "", "")]
#[case::link_to_outside(
    "ln -s /etc/passwd /output/result.json",
    "ResultUnavailable: result.json could not be read: it is a symbolic link to \"/etc/passwd\", outside /output; write a file",
    ""
)]
#[case::link_to_itself(
    "ln -s result.json /output/result.json",
    "ResultUnavailable: result.json could not be read: it is a symbolic link that leads from link to link; write a file",
    ""
)]
#[case::directory(
    "mkdir /output/result.json",
    "ResultUnavailable: result.json could not be read: it is a directory; write a file",
    ""
)]
#[case::fifo(
    "mkfifo /output/result.json",
    "ResultUnavailable: result.json could not be read: it is neither a file nor a link to one; write a file",
    ""
)]
#[tokio::test]
#[ignore = "needs an engine"]
async fn a_result_is_read_from_the_output_directory_only(
    #[case] script: &str,
    #[case] error: &str,
    #[case] body: &str,
) {
    let engine = Engine::start().await;
    let document = engine.bash(script).await;
    assert_eq!((document.error(), document.body(), document.json()), (error, body, &Value::Null));
    engine.end().await;
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn a_file_in_the_place_of_a_directory_means_no_result() {
    let engine = Engine::start().await;
    let document = engine.call(json!({"command": ["touch", "/output/a"], "out_path": "a/b"})).await;
    assert_eq!((document.error(), document.body()), ("", ""));
    engine.end().await;
}

#[rstest]
#[case::unknown_command(json!({"command": ["nope"]}), "StartError: exec: \"nope\": executable file not found in $PATH")]
#[case::bad_image_name(json!({"image": "Bash:5"}), "InvalidImageName: \"Bash:5\" is not the name of an image: ")]
#[case::too_little_memory(json!({"memory": "1Mi"}), "InvalidInputs: Minimum memory limit allowed is 6MB")]
#[tokio::test]
#[ignore = "needs an engine"]
async fn what_cannot_start_fails_at_once(#[case] inputs: Value, #[case] error: &str) {
    let engine = Engine::start().await;
    let start = Instant::now();
    let document = engine.call(inputs).await;
    assert!(document.error().starts_with(error), "{document:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    engine.end().await;
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn an_image_that_its_registry_does_not_have_fails_at_once() {
    // The engine must be on this machine to ask this registry.
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = registry.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in registry.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or_default();
            let (status, body) = if request[..read].starts_with(b"GET /v2/ ") {
                ("200 OK", "{}")
            } else {
                ("404 Not Found", r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
                 Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    let engine = Engine::start().await;
    let start = Instant::now();
    let document = engine.call(json!({"image": format!("{address}/nope:1")})).await;
    assert!(document.error().starts_with("ErrImagePull: "), "{document:?}");
    assert!(document.error().contains("manifest unknown"), "{document:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    engine.end().await;
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn a_registry_that_does_not_answer_fails_after_the_grace() {
    let engine = Engine::start().await;
    let start = Instant::now();
    let document = engine.call(json!({"image": "127.0.0.1:1/nope:1"})).await;
    assert!(document.error().starts_with("ErrImagePull: "), "{document:?}");
    assert!(document.error().contains("connection refused"), "{document:?}");
    assert!(start.elapsed() > Duration::from_secs(20), "{:?}", start.elapsed());
    engine.end().await;
}

#[rstest]
#[tokio::test]
#[ignore = "needs an engine"]
async fn a_cancelled_call_leaves_nothing(#[values(0, 2, 5, 10, 20, 50, 100, 200, 300, 500)] millis: u64) {
    let engine = Engine::start().await;
    let inputs = engine.inputs(json!({"command": ["sleep", "1000"], "in_files": {"a": "b"}}));
    let cancelled = tokio::time::timeout(Duration::from_millis(millis), call(engine.pods.clone(), &inputs)).await;
    assert!(cancelled.is_err(), "{cancelled:?}");
    engine.end().await;
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn input_files_have_the_names_and_contents_that_were_given() {
    let engine = Engine::start().await;
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let mut files = json!({
        "plain.txt": "plain", "a/b/c.txt": "nested", "with space.txt": "space", ".hidden": "dot", "a/ü–雪.txt": "non-ASCII",
        "quote\"'$(x)`.txt": "quotes", "empty": "", "new\nline": "odd", "nul": "a\u{0}b", "-rf": "dash", "back\\slash": "b",
    });
    files[&long] = json!("long");
    // Name and content in hexadecimal digits, for each file.
    let script = r#"cd /input; hex() { od -An -v -tx1 | tr -d ' \n'; }
find . -type f -print0 | while IFS= read -r -d '' name; do
  echo "$(printf %s "${name#./}" | hex) $(hex < "$name") $(stat -c %a "$name")"
done > /output/result.txt; stat -c '%a %n' /input /output >> /output/result.txt"#;
    let command = json!({"command": ["bash", "-c", script], "in_files": files, "out_path": "result.txt"});
    let document = engine.call(command).await;
    assert_eq!(document.error(), "");
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let files = files.as_object().unwrap();
    let mut expected: Vec<String> =
        files.iter().map(|(name, content)| format!("{} {} 444", hex(name), hex(content.as_str().unwrap()))).collect();
    expected.extend(["755 /input".into(), "777 /output".into()]);
    expected.sort();
    let mut found: Vec<&str> = document.body().lines().collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    engine.end().await;
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn the_directories_start_empty_even_if_the_image_has_them() {
    let engine = Engine::start().await;
    let script = "ls -A /etc /bin/../usr > /etc/result.txt";
    let document = engine
        .call(json!({
            "command": ["bash", "-c", script], "in_dir": "/usr/share", "in_files": {"a": "b"}, "out_dir": "/etc/apk/",
            "out_path": "x",
        }))
        .await;
    assert_eq!(document.error(), "");
    let script = "ls -A /etc/apk > /etc/apk/x; ls -A /usr/share >> /etc/apk/x";
    let document = engine
        .call(json!({
            "command": ["bash", "-c", script], "in_dir": "/usr/share", "in_files": {"a": "b"}, "out_dir": "/etc/apk/",
            "out_path": "x",
        }))
        .await;
    assert_eq!((document.error(), document.body()), ("", "x\na\n"));
    engine.end().await;
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn every_user_can_write_the_output() {
    let engine = Engine::start().await;
    let script = "su -s /bin/sh nobody -c 'id -un > /output/result.json'";
    let document = engine.call(json!({"image": "busybox:1.35", "command": ["sh", "-c", script]})).await;
    assert_eq!((document.error(), document.body()), ("", "nobody\n"));
    engine.end().await;
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn the_limits_and_the_environment_reach_the_container() {
    let engine = Engine::start().await;
    let script = r#"read -r memory < /sys/fs/cgroup/memory/memory.limit_in_bytes || read -r memory < /sys/fs/cgroup/memory.max
read -r quota < /sys/fs/cgroup/cpu/cpu.cfs_quota_us || read -r quota _ < /sys/fs/cgroup/cpu.max
echo "$memory $quota $A" > /output/result.json"#;
    let env = json!({"A": "b=c d"});
    let document =
        engine.call(json!({"command": ["bash", "-c", script], "env": env, "cpu": "500m", "memory": "64Mi"})).await;
    assert_eq!((document.error(), document.body()), ("", "67108864 50000 b=c d\n"));
    engine.end().await;
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn skip_cleanup_keeps_the_container_for_ever() {
    let engine = Engine::start().await;
    let (events, mut receiver) = Events::channel(false);
    let inputs = engine.inputs(json!({"command": ["true"], "skip_cleanup": true}));
    let document = Document::parse(&call_with(engine.pods.clone(), events, &inputs).await.unwrap());
    assert_eq!(document.error(), "");
    let mut name = None;
    while let Ok(event) = receiver.try_recv() {
        if let Event::Created { pod, .. } = event {
            name = Some(pod);
        }
    }
    let name = name.unwrap();
    engine.pods.drained().await;
    let state = engine.state;
    drop(engine.pods);
    connect(state.path()).await.drained().await;
    assert_eq!(docker(&["inspect", "--format", "{{.State.Status}}", &name]), "exited\n");
    docker(&["rm", "--force", "--volumes", &name]);
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn a_container_that_somebody_removes_is_a_deleted_pod() {
    let engine = Engine::start().await;
    let running = async {
        let id = until("the container runs", || running(engine.state.path())).await;
        let volume = docker(&["inspect", "--format", "{{(index .Mounts 0).Name}}", &id]);
        docker(&["rm", "--force", &id]);
        volume
    };
    let (document, volume) = tokio::join!(engine.bash("sleep 1000"), running);
    assert_eq!(document.error(), "PodDeleted: somebody deleted the pod before it was done");
    engine.end().await;
    let volumes = docker(&["volume", "ls", "--quiet"]);
    assert!(!volumes.lines().any(|left| left == volume.trim()), "the volume is left");
}

/// The id of this test's container, if it runs.
fn running(state: &Path) -> Option<String> {
    let id = containers(state).pop()?;
    let is_running = docker(&["ps", "--quiet", "--no-trunc"]).lines().any(|running| running == id);
    is_running.then_some(id)
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn the_log_is_followed_while_the_container_runs() {
    let engine = Engine::start().await;
    let (events, mut receiver) = Events::channel(true);
    let inputs =
        engine.inputs(json!({"command": ["bash", "-c", "echo out; sleep 1; echo err >&2; sleep 1; echo last"]}));
    let ctx = CallCtx::new(engine.pods.clone(), Arc::new(Policy::default())).events(events);
    let inputs = inputs.to_string();
    let running = plugin().call(ctx, "run", &inputs);
    let watching = async {
        let (mut log, mut states) = (Vec::new(), Vec::new());
        while let Some(event) = receiver.recv().await {
            match event {
                Event::Log(bytes) => log.extend(bytes),
                Event::Status(status) => states.push(status.main),
                _ => {}
            }
        }
        (log, states)
    };
    let (result, (log, states)) = tokio::join!(running, watching);
    assert_eq!(Document::parse(result.unwrap().text()).error(), "");
    assert_eq!(String::from_utf8(log).unwrap(), "out\nerr\nlast\n");
    let words: Vec<&str> = states
        .iter()
        .map(|state| match state {
            ContainerState::Waiting(cause) => &*cause.reason,
            ContainerState::Running => "running",
            ContainerState::Terminated(end) => &*end.reason,
        })
        .collect();
    assert_eq!(words, ["ContainerCreating", "running", "Completed"]);
    engine.end().await;
}

/// Runs the test `a_process_of_its_own` in a process of its own, until its container runs.
async fn other_process(state: &Path) -> (Child, String) {
    let known = containers(state);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_process_of_its_own"])
        .env("HOPS_TEST_ENGINE_STATE", state)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let id = until("the container of the other process", || {
        containers(state).into_iter().find(|container| !known.contains(container))
    })
    .await;
    (child, id)
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn a_process_of_its_own() {
    let Some(state) = std::env::var_os("HOPS_TEST_ENGINE_STATE") else { return };
    let inputs = json!({"image": "bash:5-alpine3.18", "command": ["sleep", "1000"]});
    let _ = call(connect(Path::new(&state)).await, &inputs).await;
}

#[tokio::test]
#[ignore = "needs an engine"]
async fn what_a_killed_process_left_is_removed_and_what_a_live_one_runs_is_not() {
    let engine = Engine::start().await;
    let (mut killed, left) = other_process(engine.state.path()).await;
    let (mut live, running) = other_process(engine.state.path()).await;
    killed.kill().unwrap();
    killed.wait().unwrap();

    // The process of another machine or user has another state directory.
    let stranger = Engine::start().await;
    stranger.end().await;
    let mut both = [left, running.clone()];
    let mut found = engine.containers();
    both.sort();
    found.sort();
    assert_eq!(found, both);

    connect(engine.state.path()).await.drained().await;
    assert_eq!(engine.containers(), [running]);
    live.kill().unwrap();
    live.wait().unwrap();
    connect(engine.state.path()).await.drained().await;
    let state = engine.state.path().to_owned();
    let kept = engine.state;
    drop(engine.pods);
    assert_eq!(containers(&state), Vec::<String>::new());
    let files: Vec<_> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["id"]);
    drop(kept);
}

#[rstest]
#[case::no_socket("unix:///nonexistent/docker.sock", "no such socket")]
#[case::nobody_listens("tcp://127.0.0.1:1", "onnection refused")]
#[case::unknown_scheme("ssh://somewhere", "forward the socket")]
#[tokio::test]
async fn an_engine_that_does_not_answer_is_named(#[case] host: &str, #[case] why: &str) {
    let mut options = EngineOptions::default().host(host);
    options.state_dir = None;
    let error = EnginePods::connect(options).await.err().unwrap().to_string();
    assert!(error.starts_with(&format!("the engine at {host} does not answer: ")), "{error}");
    assert!(error.contains(why), "{error}");
}
