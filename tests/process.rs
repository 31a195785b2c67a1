//! Calls as sandboxed processes of this machine.
//!
//! Where the kernel allows no sandboxes, these tests say so and pass, unless `HOPS_TEST_PROCESS=required` is set.
#![cfg(target_os = "linux")]

use futures::StreamExt;
use hops_k8s::pods::process::{Network, ProcessOptions, ProcessPods};
use hops_k8s::pods::{ContainerState, Error, Identity, Phase, PodSpec, Pods};
use hops_k8s_tests::cases::{self, Backend};
use hops_k8s_tests::{Document, call, hops};
use rstest::rstest;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

/// Pods with folders of their own test.
struct Machine {
    pods: Arc<ProcessPods>,
    folder: TempDir,
}

impl Machine {
    async fn new() -> Option<Self> {
        Machine::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ProcessOptions)) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options_in(folder.path());
        change(&mut options);
        let pods = Arc::new(ProcessPods::new(options));
        match pods.check().await {
            Ok(()) => Some(Machine { pods, folder }),
            Err(error) if std::env::var_os("HOPS_TEST_PROCESS").is_none() => {
                eprintln!("SKIPPED: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a shell script as a call, and checks that it leaves nothing.
    async fn sh(&self, script: &str, inputs: Value) -> Document {
        let mut all = json!({"image": "none", "command": ["sh", "-c", script], "cpu": "2"});
        all.as_object_mut().unwrap().extend(inputs.as_object().unwrap().clone());
        let text = call(self.pods.clone(), &all).await.unwrap();
        self.is_clean().await;
        Document::parse(&text)
    }

    async fn is_clean(&self) {
        self.pods.drained().await;
        let left: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "left: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_means_what_it_means_elsewhere() {
    let Some(machine) = Machine::new().await else { return };
    cases::check(Backend::Process, machine.pods.clone(), &json!({"image": "none", "cpu": "1"})).await;
    machine.is_clean().await;
}

fn options_in(folder: &Path) -> ProcessOptions {
    let mut options = ProcessOptions::default();
    options.helper = hops().into();
    options.folder = folder.into();
    options
}

fn pods_in(folder: &Path) -> ProcessPods {
    ProcessPods::new(options_in(folder))
}

fn spec(script: &str) -> PodSpec {
    PodSpec {
        namespace: "default".into(),
        image: "none".into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        args: vec![],
        env: vec![],
        cpu: "2".into(),
        memory: "128Mi".into(),
        input_dir: "/input".into(),
        input_files: vec![],
        output_dir: "/output".into(),
        lifetime_ms: 60_000,
        keep: false,
        service_account: None,
        image_pull_secrets: vec![],
        node_selector: vec![],
    }
}

/// The ids of the processes with this argument.
fn processes(argument: &str) -> Vec<u32> {
    let has_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())
    };
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).filter(has_it).collect()
}

fn parent_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")?.parse().ok()).unwrap()
}

/// A name that nothing else on this machine has.
fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_environment_is_clean_but_for_what_the_call_sets() {
    let Some(machine) = Machine::new().await else { return };
    let inputs = json!({"command": ["sh", "-c", "env > /output/r; pwd >> /output/r; cat >> /output/r"],
                        "env": {"A": "b c", "HOME": "/elsewhere"}, "out_path": "r"});
    let document = machine.sh("", inputs).await;
    let mut lines: Vec<&str> = document.body().lines().filter(|line| !line.starts_with('_')).collect();
    lines.retain(|line| !line.starts_with("PWD=") && !line.starts_with("OLDPWD") && !line.starts_with("SHLVL="));
    lines.sort_unstable();
    let expected = [
        "/",
        "A=b c",
        "HIPHOPS_INPUT_DIR=/input",
        "HIPHOPS_OUTPUT_DIR=/output",
        "HIPHOPS_RESULT_PATH=r",
        "HOME=/elsewhere",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_command_writes_to_its_own_folders_only() {
    let Some(machine) = Machine::new().await else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "mine").unwrap();
    let home = std::env::var("HOME").unwrap_or("/root".into());
    let script = format!(
        "for f in /x /usr/x /usr/bin/sh /etc/x /etc/passwd /proc/sys/kernel/hostname /dev/x {home}/x /input/x /input/a; \
         do (echo x > $f) 2> /dev/null && echo wrote $f; done; mount -o remount,rw /usr 2> /dev/null && echo remounted; \
         cat {file} 2> /dev/null; rm -rf {file} /home /root 2> /dev/null; echo x > /tmp/x && echo x > /dev/shm/x && echo \
         done",
        file = file.path().display()
    );
    let script = format!("({script}) > /output/r");
    let document = machine.sh(&script, json!({"in_files": {"a": ""}, "out_path": "r"})).await;
    assert_eq!((document.error(), document.body()), ("", "done\n"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[tokio::test]
async fn a_command_neither_sees_nor_signals_other_processes() {
    let Some(machine) = Machine::new().await else { return };
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let script = format!("kill -9 {} -1; echo $$ > /output/r; ls -d /proc/{0} >> /output/r; true", other.id());
    let document = machine.sh(&script, json!({"out_path": "r"})).await;
    assert_eq!((document.error(), document.body()), ("", "1\n"));
    assert_eq!(other.try_wait().unwrap(), None);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[rstest]
#[case::path(json!(["/no/such"]), "StartError: exec: \"/no/such\": No such file or directory")]
#[case::name(json!(["no-such"]), "StartError: exec: \"no-such\": executable file not found in $PATH")]
#[case::no_program(json!(["/etc/passwd"]), "StartError: exec: \"/etc/passwd\": Permission denied")]
#[tokio::test]
async fn a_program_that_cannot_be_run_is_named(#[case] command: Value, #[case] error: &str) {
    let Some(machine) = Machine::new().await else { return };
    assert_eq!(machine.sh("", json!({"command": command})).await.error(), error);
}

#[rstest]
#[case::no_command(json!({"command": []}), "InvalidInputs: command: must not be empty, because ")]
#[case::programs(json!({"out_dir": "/usr"}), "InvalidInputs: the directory \"/usr\" cannot be used: ")]
#[case::below_programs(json!({"out_dir": "/usr/share/x"}), "InvalidInputs: the directory \"/usr/share/x\" cannot be used")]
#[case::proc(json!({"in_dir": "/proc", "in_files": {"a": ""}}), "InvalidInputs: the directory \"/proc\" cannot be used: ")]
#[case::root(json!({"out_dir": "/"}), "InvalidInputs: ")]
#[case::file_and_folder(json!({"in_files": {"a": "", "a/b": ""}}), "")]
#[tokio::test]
async fn inputs_that_no_process_can_have_are_refused(#[case] inputs: Value, #[case] error: &str) {
    let Some(machine) = Machine::new().await else { return };
    let document = machine.sh("true", inputs).await;
    assert!(!document.error().is_empty() && document.error().starts_with(error), "{}", document.error());
}

#[tokio::test]
async fn unusual_directories_work() {
    let Some(machine) = Machine::new().await else { return };
    let inputs = json!({"in_dir": "/tmp/in put", "out_dir": "/a/b/c", "in_files": {"x": "y"}, "out_path": "d/e"});
    let document = machine.sh("mkdir /a/b/c/d && cp '/tmp/in put/x' /a/b/c/d/e", inputs).await;
    assert_eq!((document.error(), document.body()), ("", "y"));
    // The backend checks paths itself, whatever the plugin has checked.
    let mut bad = spec("true");
    bad.input_files = vec![hops_k8s::pods::File { path: "../../x".into(), content: vec![] }];
    assert!(matches!(machine.pods.create(bad, Identity::random()).await, Err(Error::Invalid(_))));
    let mut bad = spec("true");
    bad.output_dir = "/output/../../x".into();
    assert!(matches!(machine.pods.create(bad, Identity::random()).await, Err(Error::Invalid(_))));
}

#[rstest]
#[case::relative("echo ok > x; ln -s x r", "ok\n", "")]
#[case::absolute("echo ok > x; ln -s /output/x r", "ok\n", "")]
#[case::to_the_input("ln -s /input/a r", "in", "")]
#[case::to_the_machine("ln -s /etc/passwd r", "", "")]
#[case::upwards("ln -s ../../../../../../etc/passwd r", "", "")]
#[case::folder_upwards("ln -s / d; ln -s d/etc/passwd r", "", "")]
#[case::to_a_process("ln -s /proc/self/environ r", "", "")]
#[case::loops("ln -s r r", "", "ResultUnavailable: ")]
#[case::fifo("mkfifo r", "", "ResultUnavailable: ")]
#[case::folder("mkdir r", "", "ResultUnavailable: ")]
#[case::private("echo ok > r; chmod 600 r", "ok\n", "")]
#[case::too_large("truncate -s 1T r", "", "ResultTooLarge: ")]
#[case::own_rights_taken_away("echo ok > r; mkdir -p l/m; touch l/m/n; chmod 0 l/m l", "ok\n", "")]
#[tokio::test]
async fn a_result_is_read_from_the_pods_own_folders_only(
    #[case] script: &str,
    #[case] body: &str,
    #[case] error: &str,
) {
    let Some(machine) = Machine::new().await else { return };
    let inputs = json!({"out_path": "r", "in_files": {"a": "in"}});
    let document = machine.sh(&format!("cd /output; {script}"), inputs).await;
    assert_eq!(document.body(), body, "{}", document.error());
    assert_eq!(document.error().is_empty(), error.is_empty(), "{}", document.error());
    assert!(document.error().starts_with(error), "{}", document.error());
}

#[tokio::test]
async fn a_timeout_ends_the_command_and_what_it_has_left_in_the_background() {
    let Some(machine) = Machine::new().await else { return };
    let script = "setsid sleep 7100001 & nohup sleep 7100001 & (sleep 7100001 &) & echo begun; trap '' TERM; wait; sleep \
                  7100001";
    let document = machine.sh(script, json!({"timeout": "1s"})).await;
    assert!(document.error().starts_with("Timeout: the container ran longer than 1s"), "{}", document.error());
    assert!(document.error().contains("begun"), "{}", document.error());
    assert_eq!(processes("7100001"), [] as [u32; 0]);

    // So does the end of the command itself.
    assert_eq!(machine.sh("setsid sleep 7100002 & sleep 0.1", json!({})).await.error(), "");
    assert_eq!(processes("7100002"), [] as [u32; 0]);
}

#[tokio::test]
async fn a_command_gets_sigterm_first() {
    let Some(machine) = Machine::new().await else { return };
    let script = "trap 'echo bye > /output/r; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let mut pod = machine.pods.create(spec(script), Identity::random()).await.unwrap();
    let mut log = pod.follow_logs().await.unwrap();
    let mut line = [0; 6];
    log.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"ready\n");
    let start = Instant::now();
    pod.delete().await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    let end = pod.changed().await.unwrap();
    assert!(matches!(end.main, ContainerState::Terminated(end) if end.exit_code == 0 && end.message.is_empty()));
    machine.is_clean().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_nothing() {
    let Some(machine) = Machine::new().await else { return };
    for millis in [0, 1, 2, 5, 10, 20, 50, 200] {
        let inputs = json!({"image": "none", "command": ["sleep", "7100003"], "in_files": {"a": "b"}});
        let call = call(machine.pods.clone(), &inputs);
        assert!(tokio::time::timeout(Duration::from_millis(millis), call).await.is_err());
        machine.is_clean().await;
        assert_eq!(processes("7100003"), [] as [u32; 0]);
    }
}

#[tokio::test]
async fn statuses_follow_the_pods_life_and_its_lifetime_ends_it() {
    let Some(machine) = Machine::new().await else { return };
    let mut spec = spec("for i in $(seq 30); do echo line $i; done; sleep 600");
    spec.lifetime_ms = 500;
    let mut pod = machine.pods.create(spec, Identity::random()).await.unwrap();
    let first = pod.changed().await.unwrap();
    assert_eq!(first.phase, Phase::Pending);
    assert!(matches!(first.main, ContainerState::Waiting(why) if why.reason == "ContainerCreating"));
    let second = pod.changed().await.unwrap();
    assert_eq!((second.phase, second.main), (Phase::Running, ContainerState::Running));
    let third = pod.changed().await.unwrap();
    assert_eq!((third.phase, &*third.cause.reason), (Phase::Failed, "DeadlineExceeded"));
    let ContainerState::Terminated(end) = third.main else { panic!("{:?}", third.main) };
    assert_eq!((end.exit_code, &*end.reason), (137, "Error"));
    assert!(end.message.starts_with("line 11\n") && end.message.ends_with("line 30"), "{}", end.message);
    assert!(tokio::time::timeout(Duration::from_millis(50), pod.changed()).await.is_err());
    drop(pod);
    machine.is_clean().await;
}

#[tokio::test]
async fn a_log_of_100_megabytes_holds_up_nothing() {
    let Some(machine) = Machine::new().await else { return };
    let script = "yes 0123456789abcdef0123456789abcdef | head -c 100000000; echo; echo the end >&2; exit 1";
    let mut pod = machine.pods.create(spec(script), Identity::random()).await.unwrap();
    let follow = pod.follow_logs().await.unwrap();
    let unread = pod.follow_logs().await.unwrap();
    let read = tokio::spawn(async move {
        let (mut follow, mut all, mut buffer) = (follow, 0, vec![0; 1 << 16]);
        while let read @ 1.. = follow.read(&mut buffer).await.unwrap() {
            all += read;
        }
        all
    });
    let end = loop {
        if let ContainerState::Terminated(end) = pod.changed().await.unwrap().main {
            break end;
        }
    };
    assert!(end.message.ends_with("\nthe end"), "{}", end.message);
    assert!(end.message.len() <= 2048 && end.message.lines().count() == 20);
    assert!(read.await.unwrap() >= 100_000_000);
    drop(unread);
    assert_eq!(pod.tail_logs(1).await.unwrap(), "the end");
    pod.delete().await.unwrap();
    machine.is_clean().await;
}

#[tokio::test]
async fn kept_files_stay() {
    let Some(machine) = Machine::new().await else { return };
    let inputs = json!({"image": "none", "command": ["sh", "-c", "echo -n hi > /output/f"], "skip_cleanup": true});
    call(machine.pods.clone(), &inputs).await.unwrap();
    machine.pods.drained().await;
    let kept: Vec<PathBuf> = fs::read_dir(machine.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [kept] = &*kept else { panic!("{kept:?}") };
    assert!(kept.file_name().unwrap().to_str().unwrap().starts_with("hops-kept-"));
    assert_eq!(fs::read_to_string(kept.join("pod/output/f")).unwrap(), "hi");
    // A later start leaves them alone.
    let later = pods_in(machine.folder.path());
    later.check().await.unwrap();
    later.drained().await;
    assert!(kept.exists());
}

#[tokio::test]
async fn what_a_killed_helper_leaves_is_swept_at_the_next_start_and_nothing_else() {
    let Some(machine) = Machine::new().await else { return };
    let sleep = |seconds: &str| json!({"image": "none", "command": ["sleep", seconds]});
    let (pods, inputs) = (machine.pods.clone(), sleep("7100004"));
    let victim = tokio::spawn(async move { call(pods, &inputs).await.unwrap() });
    let (pods, inputs) = (machine.pods.clone(), sleep("7100005"));
    let living = tokio::spawn(async move { call(pods, &inputs).await.unwrap() });
    until("both run", || !processes("7100004").is_empty() && !processes("7100005").is_empty()).await;
    let helper = parent_of(processes("7100004")[0]);
    assert!(Command::new("kill").args(["-9", &helper.to_string()]).status().unwrap().success());
    let document = Document::parse(&victim.await.unwrap());
    assert!(document.error().contains("the process that supervised the command was killed"), "{}", document.error());
    until("the command ends with its helper", || processes("7100004").is_empty()).await;

    let later = pods_in(machine.folder.path());
    later.check().await.unwrap();
    later.drained().await;
    assert_eq!(fs::read_dir(machine.folder.path()).unwrap().count(), 1);
    assert_eq!(processes("7100005").len(), 1);
    living.abort();
    let _ = living.await;
    machine.is_clean().await;
}

/// Whether this process runs the test of this name alone. If not, starts one that does, and checks that it succeeds.
fn is_alone(test: &str) -> bool {
    if std::env::var_os("HOPS_TEST_ALONE").is_some() {
        return true;
    }
    let mut alone = Command::new(std::env::current_exe().unwrap());
    alone.args(["--exact", test, "--nocapture"]).env("HOPS_TEST_ALONE", "1");
    let output = alone.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("1 passed"), "{stdout}");
    false
}

/// The open descriptors of this process, and what they lead to.
fn descriptors() -> Vec<String> {
    let links = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    // The one that reads this directory leads nowhere by now.
    links.filter_map(|link| Some(format!("{}: {}", link.display(), fs::read_link(&link).ok()?.display()))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_leave_no_descriptors() {
    if !is_alone("many_calls_at_once_leave_no_descriptors") {
        return;
    }
    let Some(machine) = Machine::new().await else { return };
    assert_eq!(machine.sh("true", json!({})).await.error(), ""); // what stays open for all calls is open now
    let before = descriptors();
    let calls = futures::stream::iter(0..300).map(|number| {
        let pods = machine.pods.clone();
        let script = format!("echo {number} > /output/r");
        async move {
            let inputs = json!({"image": "none", "command": ["sh", "-c", script], "out_path": "r", "cpu": "2"});
            let document = Document::parse(&call(pods, &inputs).await.unwrap());
            assert_eq!((document.error(), document.body()), ("", &*format!("{number}\n")));
        }
    });
    calls.buffer_unordered(32).collect::<Vec<()>>().await;
    machine.is_clean().await;
    assert_eq!(descriptors(), before);
}

/// The cgroups of pods.
fn cgroups(below: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    let is_pods = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("hops-pod-");
    folders.flat_map(|path| if is_pods(&path) { vec![path] } else { cgroups(&path) }).collect()
}

#[tokio::test]
async fn a_parent_that_is_killed_at_any_moment_leaves_nothing() {
    let Some(machine) = Machine::new().await else { return };
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    let script = "setsid sleep 7100006 & sleep 7100006";
    let inputs = json!({"image": "none", "command": ["sh", "-c", script], "in_files": {"a/b": "c"}});
    fs::write(&file, inputs.to_string()).unwrap();
    let (mut started, mut seed) = (0, Instant::now().elapsed().as_nanos() as u64 + u64::from(std::process::id()));
    let run = |inputs: &Path| {
        let mut hops = Command::new(hops());
        hops.args(["run", "--local=process"]).arg(inputs).env("TMPDIR", machine.folder.path());
        hops.env("XDG_CACHE_HOME", hops_k8s_tests::hops().with_file_name("cache"));
        hops.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // The first run compiles the plugin.
    let short = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    fs::write(&short, r#"{"image": "none", "command": ["true"]}"#).unwrap();
    assert!(run(short.path()).wait().unwrap().success());
    for _ in 0..100 {
        let mut parent = run(file.path());
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_micros((seed >> 33) % 250_000)).await;
        started += usize::from(fs::read_dir(machine.folder.path()).unwrap().next().is_some());
        parent.kill().unwrap();
        parent.wait().unwrap();
    }
    until("no folder", || fs::read_dir(machine.folder.path()).unwrap().next().is_none()).await;
    until("no process", || processes("7100006").is_empty()).await;
    let found = cgroups(Path::new("/sys/fs/cgroup")); // those of other tests among them
    until("no cgroup", || found.iter().all(|group| !group.exists())).await;
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("hops-pod-"));
    eprintln!("{started} of 100 parents were killed while they had a pod");
    assert!(started > 10, "only {started} of 100 parents had a pod");
}

#[tokio::test]
async fn services_of_the_machine_cannot_be_reached() {
    let Some(machine) = Machine::new().await else { return };
    let [v4, v6] = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).unwrap());
    let [v4, v6] = [&v4, &v6].map(|listener| listener.local_addr().unwrap().port());
    let name = format!("hops-test-{}", uuid());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let script = format!(
        "exec > /output/r
         for address in 127.0.0.1/{v4} localhost/{v4} ::1/{v6}; do
             bash -c \"exec 3<> /dev/tcp/$address\" 2> /dev/null && echo reached $address
         done
         perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) or die;
                           print \"reached {name}\\n\" if connect(S, pack_sockaddr_un(\"\\0{name}\"))'
         echo done"
    );
    let document = machine.sh(&script, json!({"out_path": "r"})).await;
    assert_eq!((document.error(), document.body()), ("", "done\n"));
}

#[tokio::test]
async fn a_pod_has_a_loopback_of_its_own() {
    let Some(machine) = Machine::new().await else { return };
    let script = r#"perl -MSocket=:DEFAULT,inet_pton -e '
        for ([AF_INET, pack_sockaddr_in(8080, inet_aton("127.0.0.1"))],
             [AF_INET6, pack_sockaddr_in6(8080, inet_pton(AF_INET6, "::1"))]) {
            my ($family, $address) = @$_;
            socket(SERVER, $family, SOCK_STREAM, 0) && bind(SERVER, $address) && listen(SERVER, 1) or die "server: $!";
            socket(CLIENT, $family, SOCK_STREAM, 0) && connect(CLIENT, $address) or die "client: $!";
        }'"#;
    assert_eq!(machine.sh(script, json!({})).await.error(), "");
}

/// Adds a key to the session keyring of this thread, which is the one of processes that it starts.
fn add_key(name: &str) {
    let name = std::ffi::CString::new(name).unwrap();
    let session = -3; // KEY_SPEC_SESSION_KEYRING
    // SAFETY: the kernel reads two strings that end with NUL, and a byte.
    let key = unsafe { libc::syscall(libc::SYS_add_key, c"user".as_ptr(), name.as_ptr(), c"x".as_ptr(), 1, session) };
    assert!(key > 0, "{}", std::io::Error::last_os_error());
}

#[tokio::test]
async fn the_callers_keys_cannot_be_used() {
    let Some(machine) = Machine::new().await else { return };
    let name = format!("hops-test-{}", uuid());
    add_key(&name);
    assert!(fs::read_to_string("/proc/keys").unwrap().contains(&name));
    let search = libc::SYS_keyctl;
    let script = format!(
        "exec > /output/r
         grep -o {name} /proc/keys
         perl -e 'my ($type, $name) = (\"user\", \"{name}\");
                  print \"found\" if syscall({search}, 10, -3, $type, $name, 0) > 0; print \"$!\"'"
    );
    let document = machine.sh(&script, json!({"out_path": "r"})).await;
    assert_eq!((document.error(), document.body()), ("", "Function not implemented"));
}

#[tokio::test]
async fn on_the_machines_network_services_can_be_reached_but_no_abstract_sockets() {
    let Some(machine) = Machine::with(|options| options.network = Network::Machine).await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("hops-test-{}", uuid());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let script = format!(
        "exec > /output/r
         bash -c 'exec 3<> /dev/tcp/127.0.0.1/{}' && echo reached
         perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) or die;
                           print connect(S, pack_sockaddr_un(\"\\0{name}\")) ? \"reached\" : $!'",
        listener.local_addr().unwrap().port()
    );
    let document = machine.sh(&script, json!({"out_path": "r"})).await;
    // SAFETY: with this flag, the call takes no memory and returns a version.
    let landlock = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    let answer = if landlock >= 6 { "Operation not permitted" } else { "reached" };
    assert_eq!((document.error(), document.body()), ("", &*format!("reached\n{answer}")));
}

#[tokio::test]
async fn a_pod_has_no_more_processes_than_its_limit() {
    let Some(machine) = Machine::with(|options| options.processes = 50).await else { return };
    let script = "perl -e '$SIG{ALRM} = sub { exit }; my $count = 0;
                           while ($count < 100) { defined(my $pid = fork) or last; $pid or sleep(60), exit; $count++ }
                           print \"$count $!\"' > /output/r";
    let document = machine.sh(script, json!({"out_path": "r"})).await;
    let (count, why) = document.body().split_once(' ').unwrap();
    assert_eq!((document.error(), why), ("", "Resource temporarily unavailable"));
    assert!((40..50).contains(&count.parse::<u32>().unwrap()), "{count}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_ends_at_the_timeout_and_other_calls_go_on() {
    let Some(machine) = Machine::new().await else { return };
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 60";
    let inputs = json!({"image": "none", "command": ["bash", "-c", bomb], "timeout": "2s", "memory": "1Gi"});
    let (pods, start) = (machine.pods.clone(), Instant::now());
    let bomb = tokio::spawn(async move { call(pods, &inputs).await.unwrap() });
    while !bomb.is_finished() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
        let inputs = json!({"image": "none", "command": ["true"], "cpu": "1"});
        let document = Document::parse(&call(machine.pods.clone(), &inputs).await.unwrap());
        assert_eq!(document.error(), "");
    }
    let document = Document::parse(&bomb.await.unwrap());
    assert!(document.error().starts_with("Timeout: "), "{}", document.error());
    machine.is_clean().await;
}

const EVICTED: &str = "Evicted: the output directory took up more than its limit of 16777216 bytes; write less to it";

#[rstest]
#[case::a_large_file("head -c 1G /dev/zero > x; sleep 60", EVICTED)]
#[case::space_that_is_reserved("fallocate -l 1G x; sleep 60", EVICTED)]
#[case::a_command_that_fails_at_once("fallocate -l 1G x; exit 1", EVICTED)]
#[case::many_files("perl -e 'for (1..100000) { open F, \">\", $_ }'; sleep 60", EVICTED)]
#[case::many_directories("perl -e 'for (1..100000) { mkdir $_ }'; sleep 60", EVICTED)]
#[case::deep_directories("perl -e 'for (1..5000) { mkdir \"d\"; chdir \"d\" }'; sleep 60", EVICTED)]
#[case::a_file_below_directories("mkdir -p a/b; head -c 1G /dev/zero > a/b/x; sleep 60", EVICTED)]
#[case::a_deleted_file("exec 3> x; rm x; head -c 1G /dev/zero >&3; sleep 60", EVICTED)]
#[case::several_processes("for i in $(seq 8); do head -c 100M /dev/zero > $i & done; wait; sleep 60", EVICTED)]
#[case::a_hole("truncate -s 1T x; sleep 0.2", "")]
#[case::names_of_one_file("head -c 10M /dev/zero > x; for i in $(seq 8); do ln x $i; done; sleep 0.2", "")]
#[case::one_file_after_another("for i in $(seq 20); do head -c 4M /dev/zero > x; rm x; sleep 0.02; done", "")]
#[tokio::test]
async fn output_has_a_limit(#[case] script: &str, #[case] error: &str) {
    let Some(machine) = Machine::with(|options| options.output = 16 << 20).await else { return };
    let inputs = json!({"out_path": "r", "memory": "1Gi", "timeout": "30s"});
    let document = machine.sh(&format!("cd /output; echo kept > r; {script}"), inputs).await;
    assert_eq!((document.error(), document.body()), (error, "kept\n"));
}

#[rstest]
#[case("/tmp")]
#[case("/dev/shm")]
#[tokio::test]
async fn temporary_files_have_a_limit_of_number(#[case] folder: &str) {
    let Some(machine) = Machine::new().await else { return };
    let script =
        format!("cd {folder}; perl -e 'for (1..100000) {{ open F, \">\", $_ or print(\"$_ $!\"), last }}' > /output/r");
    let document = machine.sh(&script, json!({"out_path": "r", "memory": "128Mi"})).await;
    assert_eq!((document.error(), document.body()), ("", "32768 No space left on device")); // a page for each
}
