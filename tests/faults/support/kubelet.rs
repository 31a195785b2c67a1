//! The kubelet: a script of statuses for each pod, and the result server of all pods.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

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
    let container = |name: &str, state: Value| json!({"name": name, "state": state, "ready": true, "restartCount": 0, "image": "i", "imageID": "i"});
    json!({
        "phase": phase,
        "podIP": "127.0.0.1",
        "containerStatuses": [container("main", main), container("hiphops-sidecar", json!({"running": {}}))],
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
}

/// The result of each pod.
pub const RESULT: &str = r#"{"answer":42}"#;

/// The result server of all pods.
#[derive(Clone)]
pub struct Results {
    pub address: SocketAddr,
    script: Arc<Mutex<VecDeque<Delivery>>>,
}

impl Results {
    /// Reserves an address. Until the server listens, connections are refused.
    pub fn bind() -> io::Result<(Self, TcpSocket)> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = socket.local_addr()?;
        Ok((Results { address, script: Arc::default() }, socket))
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
            let delivery = self.script.lock().unwrap().pop_front();
            // An error means that the client went away.
            tokio::spawn(async move { deliver(stream, delivery).await });
        }
    }
}

/// Answers one request.
pub async fn deliver(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    delivery: Option<Delivery>,
) -> io::Result<()> {
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{RESULT}", RESULT.len());
    match delivery {
        None => stream.write_all(whole.as_bytes()).await?,
        Some(Delivery::Raw(answer)) => stream.write_all(answer.as_bytes()).await?,
        Some(Delivery::Closes) => {}
        Some(Delivery::Hangs) => drop(stream.read_u8().await),
        Some(Delivery::Stalls) => {
            stream.write_all(&whole.as_bytes()[..whole.len() - RESULT.len() / 2]).await?;
            drop(stream.read_u8().await);
        }
    }
    stream.shutdown().await
}
