//! The queue of a hops installation: its address, and the account that it knows us by.

use crate::files::config::Config;
use crate::files::key_file::Key;
use crate::global::Global;
use async_nats::ServerAddr;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

/// How long the first line of a queue may take.
const ANSWER: Duration = Duration::from_secs(5);
const FORM: &str = "give it the form nats://ACCOUNT:PASSWORD@HOST:4222";

/// A queue. It has no `Debug`, because the password must not be in messages.
pub(crate) struct Queue {
    /// With user and password.
    pub url: String,
    pub account: String,
    /// Host and port.
    pub host: String,
    /// The key file that all this comes from. `None` if the address was given.
    pub key_file: Option<PathBuf>,
    /// Whether other users of this machine can read the key file.
    pub is_open: bool,
}

impl Queue {
    /// The queue at `url` with `account`, both from flags or environment. Without a `url`, the queue of the key file. The
    /// configuration fills in what is not given. `None` if there is neither an address nor a key file.
    ///
    /// # Errors
    /// A sentence without secrets, which ends with what to do, after a semicolon.
    pub(crate) fn find(
        global: &Global,
        config: &Config,
        url: Option<&str>,
        account: Option<&str>,
    ) -> Result<Option<Self>, String> {
        let account = account.or(config.account.as_deref());
        // A key file that is named by a flag beats an address in the configuration.
        let url = url.or_else(|| config.nats_url.as_deref().filter(|_| global.keyfile.is_none()));
        if let Some(url) = url {
            return of_url(url, account).map(Some);
        }
        let named = global.keyfile.as_deref().or(config.keyfile.as_deref());
        Key::load(named)?.map(|key| of_key(key, account)).transpose()
    }

    /// The version of the NATS server there.
    ///
    /// # Errors
    /// A sentence that ends with what to do, after a semicolon.
    pub(crate) async fn version(&self) -> Result<String, String> {
        let greeting = async {
            let mut line = String::new();
            BufReader::new(TcpStream::connect(&self.host).await?).read_line(&mut line).await?;
            io::Result::Ok(line)
        };
        let why = match tokio::time::timeout(ANSWER, greeting).await {
            Ok(Ok(line)) => {
                let info = line.strip_prefix("INFO ").and_then(|info| serde_json::from_str(info).ok());
                let version = info.and_then(|info: serde_json::Value| Some(info.get("version")?.as_str()?.to_owned()));
                return version.ok_or_else(|| format!("what answers at {} is not NATS; check the address", self.host));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
        };
        Err(format!(
            "the queue at {} does not answer: {why}; check that it runs and that this is its address",
            self.host
        ))
    }
}

fn of_key(key: Key, account: Option<&str>) -> Result<Queue, String> {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let url = format!("nats://{}:{}@{}", encoded(&key.account), encoded(&key.password), key.domain);
    let address: ServerAddr = url.parse().map_err(|_| {
        let path = key.path.display();
        format!("the key file {path} cannot be used: its nats_domain is not the name of a host; get it from hops again")
    })?;
    Ok(Queue {
        url,
        account: account.unwrap_or(&key.account).to_owned(),
        host: host_and_port(&address),
        key_file: Some(key.path),
        is_open: key.is_open,
    })
}

fn of_url(url: &str, account: Option<&str>) -> Result<Queue, String> {
    let (scheme, _) = url.split_once("://").unwrap_or(("nats", url));
    if !["nats", "tls"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(format!("the queue's address begins with neither nats:// nor tls://; {FORM}"));
    }
    let invalid = |error: io::Error| format!("the queue's address cannot be used: {error}; {FORM}");
    let address: ServerAddr = url.parse().map_err(invalid)?;
    if address.host().is_empty() {
        return Err(format!("the queue's address names no host; {FORM}"));
    }
    let user = address.username().map(|user| percent_decode_str(user).decode_utf8_lossy().into_owned());
    let Some(account) = account.map(str::to_owned).or(user) else {
        return Err(format!("the queue's address names no account; {FORM}, or give --account"));
    };
    let (url, host) = (address.as_url_str().to_owned(), host_and_port(&address));
    Ok(Queue { url, account, host, key_file: None, is_open: false })
}

/// The host and the port of an address, as a URL has them.
fn host_and_port(address: &ServerAddr) -> String {
    let (host, port) = (address.host(), address.port());
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("nats://acc:pw@h:1", None, "acc", "h:1", (Some("acc"), Some("pw")))]
    #[case("acc@h", None, "acc", "h:4222", (Some("acc"), None))]
    #[case("tls://a%40b:p%2Fw@[::1]/", None, "a@b", "[::1]:4222", (Some("a%40b"), Some("p%2Fw")))]
    #[case("nats://[::1]:5", Some("acc"), "acc", "[::1]:5", (None, None))]
    #[case("nats://user:pw@h", Some("acc"), "acc", "h:4222", (Some("user"), Some("pw")))]
    #[case("NATS://acc:p@w@h?x=1#y", None, "acc", "h:4222", (Some("acc"), Some("p%40w")))]
    fn an_address_names_the_account_and_the_host(
        #[case] url: &str,
        #[case] account: Option<&str>,
        #[case] expected: &str,
        #[case] host: &str,
        #[case] user_and_password: (Option<&str>, Option<&str>),
    ) {
        let queue = of_url(url, account).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!((&*queue.account, &*queue.host), (expected, host));
        let address: ServerAddr = queue.url.parse().unwrap();
        assert_eq!((address.username(), address.password()), user_and_password);
        assert_eq!((host_and_port(&address), address.tls_required()), (queue.host, url.starts_with("tls")));
    }

    #[rstest]
    #[case("http://secret@h", "the queue's address begins with neither nats:// nor tls://")]
    #[case("secret://acc@h", "the queue's address begins with neither nats:// nor tls://")]
    #[case("nats://", "the queue's address names no host")]
    #[case("nats://secret:secret@", "the queue's address cannot be used: NATS server URL is invalid: empty host")]
    #[case("nats://acc:secret@h:99999", "the queue's address cannot be used: NATS server URL is invalid: invalid port")]
    #[case("nats://acc:secret@[::1", "the queue's address cannot be used: NATS server URL is invalid: invalid IPv6")]
    #[case("nats://h:4222", "the queue's address names no account")]
    #[case("nats://:secret@h:4222", "the queue's address names no account")]
    fn an_error_does_not_show_the_password(#[case] url: &str, #[case] expected: &str) {
        let Err(error) = of_url(url, None) else { panic!("{url} is not an address") };
        assert!(error.starts_with(expected) && error.contains(FORM) && !error.contains("secret"), "{error}");
    }

    fn key(domain: &str) -> Key {
        Key {
            account: "a@b/c".into(),
            password: "p%:/w?".into(),
            domain: domain.into(),
            path: "k".into(),
            is_open: false,
        }
    }

    #[rstest]
    #[case("nats.example.com", "nats.example.com:4222")]
    #[case("nats.example.com:5", "nats.example.com:5")]
    #[case("[::1]", "[::1]:4222")]
    fn a_key_makes_an_address_whatever_its_account_and_password_are(#[case] domain: &str, #[case] host: &str) {
        let queue = of_key(key(domain), None).unwrap_or_else(|error| panic!("{domain}: {error}"));
        let address: ServerAddr = queue.url.parse().unwrap();
        let decoded = |text: Option<&str>| percent_decode_str(text.unwrap()).decode_utf8().unwrap().into_owned();
        assert_eq!(decoded(address.username()), "a@b/c");
        assert_eq!(decoded(address.password()), "p%:/w?");
        assert_eq!((&*queue.account, &*queue.host), ("a@b/c", host));
    }

    #[rstest]
    fn a_key_names_a_host(#[values("a:b:c", "h:99999", "[::1")] domain: &str) {
        let Err(error) = of_key(key(domain), None) else { panic!("{domain} is not a host") };
        assert_eq!(
            error,
            "the key file k cannot be used: its nats_domain is not the name of a host; get it from hops again"
        );
    }
}
