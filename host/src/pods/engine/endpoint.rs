//! The address of an engine, and connections to it.

use hyper::http::uri::Authority;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The ports of engines, without and with TLS.
const PORTS: (u16, u16) = (2375, 2376);

/// Where an engine listens.
pub(super) enum Endpoint {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: Option<Tls> },
}

pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// What an HTTP connection needs of the one below it.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Endpoint {
    /// Reads an address as in `DOCKER_HOST`, and for TLS the files in `DOCKER_CERT_PATH`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(address: &str) -> Result<Self, String> {
        let wants_tls = || env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
        match address.split_once("://") {
            Some(("unix", path)) => Ok(Endpoint::Unix(path.into())),
            Some(("tcp" | "http", authority)) => Endpoint::tcp(authority, wants_tls()),
            Some(("https", authority)) => Endpoint::tcp(authority, true),
            _ => Err("an address begins with unix:// or tcp:// (for ssh://, forward the socket with `ssh -L`)".into()),
        }
    }

    fn tcp(authority: &str, with_tls: bool) -> Result<Self, String> {
        let authority = authority.trim_end_matches('/');
        let wrong = || format!("{authority:?} is not a host with or without a port");
        let parsed: Authority = authority.parse().map_err(|_| wrong())?;
        let usual = if with_tls { PORTS.1 } else { PORTS.0 };
        let port = match parsed.port_u16() {
            None if parsed.as_str() == parsed.host() => usual,
            port => port.ok_or_else(wrong)?,
        };
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if with_tls { Some(Tls::new(&host)?) } else { None };
        Ok(Endpoint::Tcp { host, port, tls })
    }

    /// The `Host` of requests.
    pub fn host(&self) -> &str {
        match self {
            Endpoint::Unix(_) => "localhost",
            Endpoint::Tcp { host, .. } => host,
        }
    }

    pub async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        match self {
            Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Endpoint::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                match tls {
                    None => Ok(Box::new(stream)),
                    Some(tls) => Ok(Box::new(tls.connector.connect(tls.name.clone(), stream).await?)),
                }
            }
        }
    }
}

impl Tls {
    /// Trusts `ca.pem`, and shows `cert.pem` if it is there: Docker's own files.
    fn new(host: &str) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is not a host name"))?;
        let dir = cert_dir().ok_or("DOCKER_CERT_PATH is not set, and there is no home directory")?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&dir.join("ca.pem"))? {
            roots.add(certificate).map_err(|error| format!("{}: {error}", dir.join("ca.pem").display()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        let config = if cert.exists() {
            let key_of = |error| format!("{}: {error}", key.display());
            let key = PrivateKeyDer::from_pem_slice(&read(&key)?).map_err(|error| key_of(error.to_string()))?;
            let config = config.with_client_auth_cert(certificates(&cert)?, key);
            config.map_err(|error| format!("{}: {error}", cert.display()))?
        } else {
            config.with_no_client_auth()
        };
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

fn cert_dir() -> Option<PathBuf> {
    let set = ["DOCKER_CERT_PATH", "DOCKER_CONFIG"].into_iter().find_map(env::var_os).map(PathBuf::from);
    set.or_else(|| Some(env::home_dir()?.join(".docker")))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let of = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let all = all.map_err(|error| of(&error))?;
    if all.is_empty() { Err(of(&"it has no certificate")) } else { Ok(all) }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("tcp://127.0.0.1:80", Some(("127.0.0.1", 80)))]
    #[case("tcp://engine", Some(("engine", 2375)))]
    #[case("tcp://engine:2376/", Some(("engine", 2376)))]
    #[case("http://[::1]:80", Some(("::1", 80)))]
    #[case("tcp://", None)]
    #[case("tcp://engine:port", None)]
    #[case("tcp://engine/path", None)]
    #[case("ssh://engine", None)]
    #[case("npipe:////./pipe/docker_engine", None)]
    #[case("engine", None)]
    fn a_tcp_address_has_a_host_and_a_port(#[case] address: &str, #[case] expected: Option<(&str, u16)>) {
        let endpoint = Endpoint::parse(address);
        let found = match &endpoint {
            Ok(Endpoint::Tcp { host, port, .. }) => Some((host.as_str(), *port)),
            _ => None,
        };
        assert_eq!(found, expected);
    }
}
