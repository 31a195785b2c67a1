//! `hops start`, its configuration and its key file, with an API server that answers nothing but its version.

use hops_k8s::plugin::EMBEDDED;
use hops_k8s_tests::client::send;
use hops_k8s_tests::nats::{ACCOUNT, Installation, Server};
use hops_k8s_tests::{Document, hops};
use rstest::rstest;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// `hops` in `dir`, which is its home too.
fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(hops());
    command.args(arguments).current_dir(dir).env("HOME", dir);
    command.env("XDG_CACHE_HOME", hops().with_file_name("cache"));
    for name in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HOPS_TOKEN"] {
        command.env_remove(name);
    }
    command
}

/// The exit status and the errors.
fn run(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A home with these files.
fn home(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".hops")).unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

#[rstest]
#[case::nothing("", &[], &[], "no cluster is known: ")]
#[case::file("kubeconfig: /file\n", &[], &[], "the kubeconfig /file cannot be used")]
#[case::later_layout("k8s: {kubeconfig: /file}\n", &[], &[], "the kubeconfig /file cannot be used")]
#[case::environment_beats_file("kubeconfig: /file\n", &[("HOPS_KUBECONFIG", "/env")], &[], "the kubeconfig /env ")]
#[case::environment_beats_later_layout("k8s: {kubeconfig: /file}", &[("HOPS_KUBECONFIG", "/env")], &[], "the kubeconfig /env ")]
#[case::flag_beats_both("kubeconfig: /file\n", &[("HOPS_KUBECONFIG", "/env")], &["--kubeconfig", "/flag"], "the kubeconfig /flag ")]
#[case::context_of_file("kubeconfig: ../k\ncontext: c1\n", &[], &[], "the kubeconfig $HOME/.hops/../k cannot be used: failed to load current context: c1")]
#[case::home("kubeconfig: ~/k\ncontext: c1\n", &[], &[], "the kubeconfig $HOME/k cannot be used: failed to load current context: c1")]
#[case::context_of_environment("kubeconfig: ~/k\ncontext: c1\n", &[("HOPS_CONTEXT", "c2")], &[], "the kubeconfig $HOME/k cannot be used: failed to load current context: c2")]
#[case::context_of_flag("kubeconfig: ~/k\ncontext: c1\n", &[("HOPS_CONTEXT", "c2")], &["--context", "c3"], "the kubeconfig $HOME/k cannot be used: failed to load current context: c3")]
#[case::another_file("kubeconfig: /file\n", &[("HOPS_CONFIG", "other.yaml")], &[], "the kubeconfig /other cannot be used")]
#[case::another_file_by_flag("kubeconfig: /file\n", &[("HOPS_CONFIG", "no.yaml")], &["-c", "other.yaml"], "the kubeconfig /other cannot be used")]
fn flags_beat_the_environment_and_that_beats_the_file(
    #[case] config: &str,
    #[case] environment: &[(&str, &str)],
    #[case] flags: &[&str],
    #[case] expected: &str,
) {
    let files = [
        (".hops/config.yaml", config),
        ("other.yaml", "kubeconfig: /other"),
        ("k", "{apiVersion: v1, kind: Config}"),
        ("a.json", r#"{"image": "a"}"#),
    ];
    let dir = home(&files);
    let mut command = command(dir.path(), &["run", "a.json"]);
    command.args(flags).envs(environment.iter().copied());
    let (status, stderr) = run(command);
    let expected = expected.replace("$HOME", dir.path().to_str().unwrap());
    assert!(stderr.starts_with(&format!("hops: {expected}")), "{stderr}");
    assert_eq!(status, 3);
}

#[rstest]
#[case::unknown_key("kubconfig: a\n", &["run", "a.json"], "config.yaml:1:1: unknown key \"kubconfig\", did you mean \"kubeconfig\"?\n")]
#[case::wrong_type("debug: true\nport-forward: 5\n", &["check"], "config.yaml:2:15: ")]
#[case::no_such_file("", &["check", "--config", "no.yaml"], "the configuration no.yaml cannot be read: No such file")]
#[case::no_queue("", &["start", "worker"], "no queue is known: there is no --nats-url and no key file; put the key file that you got from hops at ")]
#[case::no_queue_for_the_server("", &["start", "server"], "no queue is known: ")]
#[case::named_key_file("", &["start", "worker", "--keyfile", "no"], "the key file no cannot be read: No such file")]
#[case::configured_key_file("keyfile: bad.key", &["start", "worker"], ".hops/bad.key cannot be used: it is not base64; get it from hops again\n")]
#[case::address("", &["start", "worker", "--nats-url", "nats://h:4222"], "the queue's address names no account; ")]
#[case::token_file("k8s: {serve: false}", &["start", "server", "--token-file", "no"], "the token file no cannot be read: ")]
fn an_error_before_the_start_ends_with_2(#[case] config: &str, #[case] arguments: &[&str], #[case] why: &str) {
    let dir = home(&[(".hops/config.yaml", config), (".hops/bad.key", "s!cret"), ("a.json", "{}")]);
    let (status, stderr) = run(command(dir.path(), arguments));
    assert!(stderr.contains(why) && stderr.starts_with("hops: "), "{stderr}");
    assert!(!stderr.contains("s!cret"), "{stderr}");
    assert_eq!((status, stderr.lines().count()), (2, 1), "{stderr}");
}

#[test]
fn a_command_that_needs_no_configuration_ignores_a_wrong_one() {
    let dir = home(&[(".hops/config.yaml", "gerbil: 1")]);
    assert_eq!(run(command(dir.path(), &["completions", "bash"])), (0, String::new()));
}

/// The pods that an API server is to create.
#[derive(Clone, Default)]
struct Creations {
    are_asked: Arc<AtomicBool>,
    /// Whether it does not answer yet.
    are_held: Arc<AtomicBool>,
}

/// An API server that answers nothing but its version.
fn api_server(creations: Creations) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let creations = creations.clone();
            std::thread::spawn(move || answer(stream.unwrap(), &creations));
        }
    });
    address
}

fn answer(mut stream: std::net::TcpStream, creations: &Creations) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_err() {
            return;
        }
        head.extend(byte);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).unwrap();
    if text.starts_with("post /api/v1/namespaces/default/pods") {
        creations.are_asked.store(true, Ordering::SeqCst);
        while creations.are_held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let (status, body) = if head.starts_with(b"GET /version ") {
        let version = serde_json::json!({
            "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": "",
        });
        ("200 OK", version.to_string())
    } else {
        let status = r#"{"kind": "Status", "status": "Failure", "message": "namespaces are unknown", "code": 404}"#;
        ("404 Not Found", status.into())
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// A home with a kubeconfig for that API server.
fn home_with_cluster() -> TempDir {
    home_with(api_server(Creations::default()))
}

fn home_with(server: SocketAddr) -> TempDir {
    let kubeconfig = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: \
         'http://{server}'}}}}], users: [{{name: u, user: {{token: t0ken}}}}], contexts: [{{name: c, context: \
         {{cluster: c, user: u}}}}]}}"
    );
    home(&[("k", &kubeconfig), (".hops/config.yaml", "kubeconfig: ~/k\n")])
}

#[test]
fn without_a_queue_that_answers_it_ends_with_3() {
    let dir = home_with_cluster();
    let url = format!("nats://acc:s3cret@127.0.0.1:{}", free_port());
    let start = Instant::now();
    let (status, stderr) = run(command(dir.path(), &["start", "worker", "--nats-url", &url]));
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("hops: the queue at 127.0.0.1:"), "{stderr}");
    assert!(!stderr.contains("s3cret"), "{stderr}");
    assert_eq!(status, 3);
    assert!(start.elapsed() < Duration::from_secs(60), "it took {:?}", start.elapsed());
}

#[test]
fn without_a_cluster_that_answers_it_ends_with_3() {
    let dir = home(&[]);
    let kubeconfig = "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: \
                      'http://127.0.0.1:1'}}], users: [], contexts: [{name: c, context: {cluster: c, user: u}}]}";
    fs::write(dir.path().join("k"), kubeconfig).unwrap();
    let (status, stderr) =
        run(command(dir.path(), &["start", "worker", "--kubeconfig", "k", "--nats-url", "nats://acc@127.0.0.1:1"]));
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("hops: the API server at http://127.0.0.1:1/ does not answer: "), "{stderr}");
    assert_eq!(status, 3);
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    let dir = home_with_cluster();
    fs::write(dir.path().join(".hops/config.yaml"), "kubeconfig: ~/k\nk8s: {serve: false}\naddress: 0.0.0.0:0\n")
        .unwrap();
    let (status, stderr) = run(command(dir.path(), &["start", "server"]));
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("hops: 0.0.0.0:0 can be reached from other machines, and without a token"), "{stderr}");
    assert_eq!(status, 2);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `hops` in the background.
struct Service {
    process: Child,
    log: BufReader<ChildStderr>,
}

impl Service {
    fn start(mut command: Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        Service { process, log }
    }

    /// The next line of the log that says this.
    fn line(&mut self, message: &str) -> Value {
        let mut log = String::new();
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "{message:?} is missing in\n{log}");
            log += &line;
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if line["message"] == message {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// The exit status and the rest of the log.
    fn ended(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.process.wait().unwrap().code().unwrap(), rest)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[rstest]
#[case("TERM", 0)]
#[case("INT", 130)]
#[tokio::test]
async fn the_server_logs_what_it_serves_and_ends_on_a_signal(#[case] signal: &str, #[case] status: i32) {
    let mut queue = Server::start(1024 * 1024);
    let _installation = Installation::start(&queue).await;
    let dir = home_with_cluster();
    let arguments = ["start", "server", "--address", "127.0.0.1:0", "--concurrency", "5", "--drain", "3s"];
    let mut command = command(dir.path(), &arguments);
    command.env("HOPS_NATS_URL", queue.url()).env("HOPS_TOKEN", "t0p");
    let mut service = Service::start(command);
    let first = service.line("hops starts");
    assert_eq!(first["account"], ACCOUNT);
    assert!(queue.url().ends_with(first["queue"].as_str().unwrap()), "{first}");
    assert_eq!((&first["context"], &first["fetch"]), (&"c".into(), &"port-forward".into()));
    assert_eq!((&first["concurrency"], &first["drain"]), (&5.into(), &"3s".into()));
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert!(first["cluster"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{first}");
    for secret in ["s/e@cr", "s%2Fe", "t0ken", "t0p"] {
        assert!(!first.to_string().contains(secret), "{first}");
    }

    let address: SocketAddr = service.line("the HTTP endpoints are up")["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(send(address, "GET", "/readyz", &[], b"").await.status, 200);
    assert_eq!(send(address, "POST", "/v1/call/k8s/run", &[], b"{}").await.status, 401);
    let answer = send(address, "POST", "/v1/call/k8s/run", &[("Authorization", "Bearer t0p")], b"{}").await;
    assert!(answer.body.contains("InvalidInputs: "), "{}", answer.body);

    queue.kill();
    let start = Instant::now();
    while send(address, "GET", "/readyz", &[], b"").await.status != 503 {
        assert!(start.elapsed() < Duration::from_secs(10), "it is ready without a queue");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    queue.resume();
    let start = Instant::now();
    while send(address, "GET", "/readyz", &[], b"").await.status != 200 {
        assert!(start.elapsed() < Duration::from_secs(30), "it is not ready with the queue back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    service.signal(signal);
    let (code, rest) = service.ended();
    assert_eq!(code, status, "{rest}");
    assert!(rest.contains("taking nothing new"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sighup_policy_and_plugin_are_read_again_and_no_call_is_lost() {
    let creations = Creations::default();
    creations.are_held.store(true, Ordering::SeqCst);
    let dir = home_with(api_server(creations.clone()));
    let write = |name: &str, content: &[u8]| fs::write(dir.path().join(".hops").join(name), content).unwrap();
    write("config.yaml", b"{kubeconfig: ~/k, policy: policy.yaml, plugin: k8s.wasm, k8s: {serve: false}}");
    write("policy.yaml", b"images: [docker.io/library/*]");
    write("k8s.wasm", EMBEDDED);
    let mut service = Service::start(command(dir.path(), &["start", "server", "--address", "127.0.0.1:0"]));
    let address: SocketAddr = service.line("the HTTP endpoints are up")["address"].as_str().unwrap().parse().unwrap();
    let call = || async move {
        let answer = send(address, "POST", "/v1/call/k8s/run", &[], br#"{"image": "bash:5"}"#).await;
        Document::parse(&answer.body).error().to_owned()
    };
    let allowed = "InvalidInputs: namespace \"default\" does not exist; create it or name another";
    let before = tokio::spawn(call());
    let start = Instant::now();
    while !creations.are_asked.load(Ordering::SeqCst) {
        assert!(start.elapsed() < Duration::from_secs(10), "the API server is not asked");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    write("policy.yaml", b"images: [ghcr.io/acme/*]");
    service.signal("HUP");
    let first = service.line("policy and plugin read");
    assert!(first["policy"].as_str().unwrap().starts_with("any namespace, images ghcr.io/acme/*, "), "{first}");
    assert!(call().await.starts_with("PolicyDenied: "));
    creations.are_held.store(false, Ordering::SeqCst);
    assert_eq!(before.await.unwrap(), allowed);

    write("policy.yaml", b"imagse: []");
    service.signal("HUP");
    let error = service.line("policy and plugin stay as they were")["error"].as_str().unwrap().to_owned();
    assert!(error.ends_with("policy.yaml:1:1: unknown key \"imagse\", did you mean \"images\"?"), "{error}");
    write("policy.yaml", b"");
    write("k8s.wasm", b"none");
    service.signal("HUP");
    let error = service.line("policy and plugin stay as they were")["error"].as_str().unwrap().to_owned();
    assert!(error.contains("k8s.wasm: the plugin is not a WebAssembly component: "), "{error}");
    assert!(call().await.starts_with("PolicyDenied: "));

    // With a section that means nothing, it is another plugin.
    write("k8s.wasm", &[EMBEDDED, &[0, 2, 1, b'x']].concat());
    service.signal("HUP");
    assert_ne!(service.line("policy and plugin read")["plugin"], first["plugin"]);
    assert_eq!(call().await, allowed);
    service.signal("TERM");
    assert_eq!(service.ended().0, 0);
}
