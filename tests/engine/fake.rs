//! An engine that answers as a test wants it to.

use hops_k8s::pods::engine::{EngineError, EngineOptions, EnginePods};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// An answer to a request.
pub enum Answer {
    /// This one.
    Json(u16, Value),
    /// These bytes, and no more.
    Bytes(Vec<u8>),
    /// These bytes, then the last ones again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// An error with a message that goes on for ever.
    EndlessError,
    /// Headers that go on for ever.
    EndlessHeaders,
    /// A byte every so often, without an end.
    Drip(Duration),
}

type Play = dyn Fn(&str) -> Option<Answer> + Send + Sync;

/// An engine on a socket of its own. Whatever a test does not answer, it answers as if containers ended at once.
pub struct Fake {
    dir: TempDir,
    sent: Arc<AtomicUsize>,
}

impl Fake {
    /// Answers requests such as `GET /version` with `play`, if that has an answer.
    pub fn start(play: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let fake = Fake { dir: TempDir::new().unwrap(), sent: Arc::default() };
        let listener = UnixListener::bind(fake.socket()).unwrap();
        let (play, sent): (Arc<Play>, _) = (Arc::new(play), fake.sent.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (play, sent) = (play.clone(), sent.clone());
                // A client that has read enough closes the connection, which ends this.
                tokio::spawn(async move { serve(stream, &*play, &sent).await });
            }
        });
        fake
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    pub async fn pods(&self) -> Arc<EnginePods> {
        Arc::new(self.connect().await.unwrap_or_else(|error| panic!("{error}")))
    }

    pub async fn connect(&self) -> Result<EnginePods, EngineError> {
        let options = EngineOptions::default().host(format!("unix://{}", self.socket().display()));
        EnginePods::connect(options.state_dir(self.dir.path().join("state"))).await
    }

    /// The bytes that were sent in all. Those that were not read are among them, as far as the kernel takes them.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

async fn serve(stream: UnixStream, play: &Play, sent: &AtomicUsize) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).await?;
    let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line).await?;
        let header = line.trim_end().to_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    tokio::io::copy(&mut (&mut reader).take(length), &mut tokio::io::sink()).await?;
    let request = without_version(&request);
    let mut write = async |bytes: &[u8]| {
        writer.write_all(bytes).await?;
        sent.fetch_add(bytes.len(), Ordering::SeqCst);
        std::io::Result::Ok(())
    };
    match play(&request).unwrap_or_else(|| usual(&request)) {
        Answer::Json(status, json) => {
            let body = if status == 204 { String::new() } else { json.to_string() };
            let length = body.len();
            let head = format!("HTTP/1.1 {status} OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            write((head + &body).as_bytes()).await
        }
        Answer::Bytes(bytes) => {
            write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            write(&bytes).await
        }
        Answer::Endless(first, rest) => {
            write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            write(&first).await?;
            loop {
                write(&rest).await?;
            }
        }
        Answer::EndlessError => {
            write(b"HTTP/1.1 500 Broken\r\nConnection: close\r\n\r\n{\"message\":\"so much is wrong: ").await?;
            loop {
                write(&[b'x'; 1 << 16]).await?;
            }
        }
        Answer::EndlessHeaders => {
            write(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                write(format!("X-Long: {}\r\n", "x".repeat(1 << 13)).as_bytes()).await?;
            }
        }
        Answer::Drip(pause) => {
            write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            loop {
                write(b" ").await?;
                tokio::time::sleep(pause).await;
            }
        }
    }
}

fn without_version(request: &str) -> String {
    match request.split_once(" /v1.") {
        Some((method, rest)) => {
            let path = rest.split_once('/').map_or("", |(_, path)| path);
            format!("{method} /{path}")
        }
        None => request.to_owned(),
    }
}

/// What an engine says whose containers end at once.
fn usual(request: &str) -> Answer {
    let path = request.split('?').next().unwrap();
    let (status, json) = match path {
        "GET /version" => (200, json!({"Version": "1", "ApiVersion": "1.41"})),
        "GET /info" => (200, json!({"LoggingDriver": "json-file"})),
        "GET /containers/json" => (200, json!([])),
        "POST /containers/create" => (201, json!({"Id": "1", "Warnings": []})),
        _ if path.ends_with("/json") => {
            (200, json!({"State": {"Status": "exited", "Running": false, "ExitCode": 0}, "Mounts": []}))
        }
        _ if path.ends_with("/wait") => (200, json!({"StatusCode": 0})),
        _ if request.starts_with("GET ") => (404, json!({"message": "Could not find the file"})),
        _ if path.ends_with("/start") || request.starts_with("DELETE ") => (204, Value::Null),
        _ => (200, json!({})),
    };
    Answer::Json(status, json)
}
