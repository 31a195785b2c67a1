//! The kubelet: a script of statuses for each pod, and the result server of all pods.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The statuses of a pod, each with the milliseconds that pass before it.
pub type Script = Vec<(u64, Value)>;

/// A pod that runs for half a second and exits.
pub fn exits(code: i64) -> Script {
    vec![(100, running()), (500, exited(code))]
}

/// A pod that never ends.
pub fn runs_on() -> Script {
    vec![(100, running())]
}

pub fn running() -> Value {
    pod("Running", json!({"running": {}}))
}

pub fn exited(code: i64) -> Value {
    pod("Running", json!({"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" }}}))
}

fn pod(phase: &str, main: Value) -> Value {
    with_server(phase, main, json!({"running": {}}))
}

/// The status of a pod whose result server is in this state.
pub fn with_server(phase: &str, main: Value, server: Value) -> Value {
    let container = |name: &str, state: Value| json!({"name": name, "state": state, "ready": true, "restartCount": 0, "image": "i", "imageID": "i"});
    json!({
        "phase": phase,
        "podIP": "127.0.0.1",
        "containerStatuses": [container("main", main), container("hiphops-sidecar", server)],
    })
}

/// What the result server does to one request, instead of delivering [`RESULT`].
#[derive(Clone)]
pub enum Delivery {
    /// Says nothing.
    Hangs,
    /// Says exactly this, and closes.
    Raw(String),
    /// Closes at once.
    Closes,
    /// Announces the result, sends half of it, and then nothing.
    Stalls,
    /// Sends this, without waiting for a request, and closes.
    Unasked(String),
    /// Announces the result, sends half of it, and resets the connection.
    Resets,
    /// Sends the first text, and then the second again and again while the client takes it, up to [`FLOOD`].
    Floods(String, String),
    /// Announces a file of so many bytes, and sends so many of them after each pause.
    Drips { length: usize, piece: usize, pause: Duration },
}

/// What a flood amounts to if nobody stops it.
pub const FLOOD: usize = 96 << 20;
/// The most of a flood that a careful client may take: its limits, and the buffers of the system and of the scenario.
pub const TAKEN: usize = 48 << 20;

/// The result of each pod.
pub const RESULT: &str = r#"{"answer":42}"#;

/// The result server of all pods.
#[derive(Clone)]
pub struct Results {
    pub address: SocketAddr,
    script: Arc<Mutex<VecDeque<Delivery>>>,
    /// How many connections there have been.
    pub connections: Arc<AtomicUsize>,
    /// The most that one connection took of a flood.
    pub taken: Arc<AtomicUsize>,
}

impl Results {
    /// Reserves an address. Until the server listens, connections are refused.
    pub fn bind() -> io::Result<(Self, TcpSocket)> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = socket.local_addr()?;
        Ok((Results { address, script: Arc::default(), connections: Arc::default(), taken: Arc::default() }, socket))
    }

    pub fn script(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.script.lock().unwrap().extend(deliveries);
    }

    pub async fn serve(self, socket: TcpSocket, after: Duration) {
        tokio::time::sleep(after).await;
        let listener = socket.listen(1024).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            self.connections.fetch_add(1, Ordering::Relaxed);
            let delivery = self.script.lock().unwrap().pop_front();
            let taken = self.taken.clone();
            // An error means that the client went away.
            tokio::spawn(async move { deliver(stream, delivery, &taken).await });
        }
    }
}

/// Answers one request.
async fn deliver(mut stream: TcpStream, delivery: Option<Delivery>, taken: &AtomicUsize) -> io::Result<()> {
    if let Some(Delivery::Unasked(answer)) = &delivery {
        stream.write_all(answer.as_bytes()).await?;
        return stream.shutdown().await;
    }
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{RESULT}", RESULT.len());
    match delivery {
        None => stream.write_all(whole.as_bytes()).await?,
        Some(Delivery::Raw(answer) | Delivery::Unasked(answer)) => stream.write_all(answer.as_bytes()).await?,
        Some(Delivery::Closes) => {}
        Some(Delivery::Hangs) => drop(stream.read_u8().await),
        Some(Delivery::Stalls) => {
            stream.write_all(&whole.as_bytes()[..whole.len() - RESULT.len() / 2]).await?;
            drop(stream.read_u8().await);
        }
        Some(Delivery::Resets) => {
            stream.write_all(&whole.as_bytes()[..whole.len() - RESULT.len() / 2]).await?;
            // What was sent arrives before the reset.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return stream.set_zero_linger();
        }
        Some(Delivery::Floods(start, piece)) => {
            stream.write_all(start.as_bytes()).await?;
            let (mut sent, piece) = (0, piece.repeat((64 << 10) / piece.len() + 1));
            while sent < FLOOD {
                stream.write_all(piece.as_bytes()).await?;
                sent += piece.len();
                taken.fetch_max(sent, Ordering::Relaxed);
            }
        }
        Some(Delivery::Drips { length, piece, pause }) => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await?;
            let mut left = length;
            while left > 0 {
                tokio::time::sleep(pause).await;
                let next = piece.min(left);
                stream.write_all("a".repeat(next).as_bytes()).await?;
                left -= next;
            }
        }
    }
    stream.shutdown().await
}
