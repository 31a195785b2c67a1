//! What stands between a client and a server: port-forwarding, and a proxy.

use futures::{SinkExt, StreamExt};
use http::{Extensions, HeaderMap, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The channels of the one port, for its data and its errors. Each message begins with the number of its channel.
const CHANNELS: [u8; 2] = [0, 1];

/// Switches protocols, and passes on what comes to the result server at `pods`.
pub fn accept(
    headers: &HeaderMap,
    mut extensions: Extensions,
    pods: SocketAddr,
) -> io::Result<Response<crate::server::Body>> {
    let upgrade = extensions.remove::<OnUpgrade>().expect("the client asks for an upgrade");
    tokio::spawn(async move {
        let upgraded = upgrade.await.map_err(io::Error::other)?;
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        forward(socket, pods).await
    });
    Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", derive_accept_key(headers["sec-websocket-key"].as_bytes()))
        .header("sec-websocket-protocol", "v4.channel.k8s.io")
        .body(Empty::<Bytes>::new().map_err(|never| match never {}).boxed())
        .map_err(io::Error::other)
}

/// A proxy whose clients all want to reach `server`.
pub async fn proxy(listener: TcpListener, server: SocketAddr) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let mut request = vec![];
            while !request.ends_with(b"\r\n\r\n") {
                request.push(client.read_u8().await?);
            }
            let mut server = TcpStream::connect(server).await?;
            server.set_nodelay(true)?;
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}

async fn forward<S>(mut socket: WebSocketStream<S>, pods: SocketAddr) -> io::Result<()>
where
    S: AsyncReadExt + AsyncWriteExt + Unpin,
{
    for channel in CHANNELS {
        let [low, high] = pods.port().to_le_bytes();
        socket.send(Message::binary(vec![channel, low, high])).await.map_err(io::Error::other)?;
    }
    let mut pod = TcpStream::connect(pods).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => pod.write_all(&bytes[1..]).await?,
                Some(Ok(_)) => {}
                _ => return Ok(()),
            },
            read = pod.read(&mut buffer) => {
                let read = read?;
                if read == 0 {
                    return socket.close(None).await.map_err(io::Error::other);
                }
                let message = [&CHANNELS[..1], &buffer[..read]].concat();
                socket.send(Message::binary(message)).await.map_err(io::Error::other)?;
            }
        }
    }
}
