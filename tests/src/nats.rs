//! A real nats-server, and a client that plays the hops server of an installation.

use crate::{Document, target};
use async_nats::jetstream::consumer::{Info, PullConsumer};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, LastRawMessageErrorKind};
use async_nats::jetstream::{self, Context};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The account of an installation, unless a test says otherwise.
pub const ACCOUNT: &str = "acc-1";
const PASSWORD: &str = "s/e@cr-xyz";
const VERSION: &str = "v2.15.2";

/// The program: the one in `PATH`, else one that is built beside the tests at the first need.
fn nats_server() -> &'static Path {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if quiet(Command::new("nats-server").arg("--version")).is_ok_and(|status| status.success()) {
            return "nats-server".into();
        }
        let tools = target().join("tools");
        let server = tools.join("nats-server");
        if !server.exists() {
            let package = format!("github.com/nats-io/nats-server/v2@{VERSION}");
            let install = Command::new("go").args(["install", &package]).env("GOBIN", &tools).status();
            let is_installed = install.is_ok_and(|status| status.success());
            assert!(is_installed, "the tests need nats-server: put one into PATH, or install Go (https://go.dev/dl)");
        }
        server
    })
}

/// A server of a test's own, with JetStream in a folder that goes with it.
pub struct Server {
    process: Option<Child>,
    folder: TempDir,
    port: u16,
    account: String,
}

impl Server {
    /// Starts a server that takes messages of this many bytes.
    pub fn start(max_payload: usize) -> Self {
        Self::start_for(ACCOUNT, max_payload)
    }

    /// Starts a server for this account. Workers of one account look after each other's pods, so in a cluster that
    /// they share tests need accounts of their own.
    pub fn start_for(account: &str, max_payload: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "listen: 127.0.0.1:{port}\nmax_payload: {max_payload}\njetstream {{ store_dir: {:?} }}\n\
             authorization {{ users = [{{user: {account:?}, password: {PASSWORD:?}}}] }}\n",
            folder.path()
        );
        std::fs::write(folder.path().join("nats.conf"), config).unwrap();
        let mut server = Server { process: None, folder, port, account: account.into() };
        server.resume();
        server
    }

    /// Starts the server again, on what it has stored.
    pub fn resume(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(nats_server());
        command.arg("-c").arg(self.folder.path().join("nats.conf")).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("nats-server can be started"));
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "nats-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server; what it has stored stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// The account of the installation, and the user of the server.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The server's address, with the account and its password as a key file gives them.
    pub fn url(&self) -> String {
        format!("nats://{}:{}@127.0.0.1:{}", self.account, PASSWORD.replace('/', "%2F").replace('@', "%40"), self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The hops server's side of an installation.
pub struct Installation {
    /// For what this has no word for.
    pub context: Context,
    account: String,
}

impl Installation {
    /// Connects, and creates the stream.
    pub async fn start(server: &Server) -> Self {
        let options = async_nats::ConnectOptions::with_user_and_password(server.account.clone(), PASSWORD.into());
        let client = options.connect(format!("127.0.0.1:{}", server.port)).await.unwrap();
        let context = jetstream::new(client);
        let config = Config {
            name: server.account.clone(),
            subjects: vec![format!("{}.>", server.account)],
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            max_messages_per_subject: 1,
            ..Config::default()
        };
        context.create_stream(config).await.unwrap();
        Installation { context, account: server.account.clone() }
    }

    /// Sends a `k8s.run` request.
    pub async fn request(&self, sequence: &str, message: &str, inputs: impl AsRef<[u8]>) {
        self.publish(&format!("request.{sequence}.{message}.k8s.run"), inputs).await;
    }

    /// Puts a message into the stream.
    pub async fn publish(&self, subject: &str, payload: impl AsRef<[u8]>) {
        let message = PublishMessage::build().payload(payload.as_ref().to_vec().into());
        self.context.send_publish(format!("{}.{subject}", self.account), message).await.unwrap().await.unwrap();
    }

    /// The result of a request, if it is there.
    pub async fn result(&self, sequence: &str, message: &str) -> Option<Document> {
        let stream = self.context.get_stream_no_info(&self.account).await.unwrap();
        let subject = format!("{}.notify.{sequence}.{message}", self.account);
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Some(Document::parse(std::str::from_utf8(&message.payload).unwrap())),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The result of a request, as soon as it is there.
    pub async fn awaited(&self, sequence: &str, message: &str) -> Document {
        let start = Instant::now();
        loop {
            if let Some(document) = self.result(sequence, message).await {
                return document;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "no result of {sequence}.{message} in two minutes");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The consumer of the workers.
    pub async fn consumer(&self) -> PullConsumer {
        let stream = self.context.get_stream_no_info(&self.account).await.unwrap();
        stream.get_consumer(&format!("{}-request-k8s", self.account)).await.unwrap()
    }

    /// What is known of the workers' consumer, as soon as no request is unanswered.
    pub async fn all_answered(&self) -> Info {
        let start = Instant::now();
        loop {
            let info = self.consumer().await.cached_info().clone();
            if info.num_ack_pending == 0 && info.num_pending == 0 {
                return info;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "requests are unanswered after two minutes: {info:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
