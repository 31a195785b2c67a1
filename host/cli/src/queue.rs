//! Where the queue of a hops installation is, and who we are to it.

use crate::files::config::Config;
use crate::files::key_file::Key;
use crate::global::Global;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

/// The longest that the queue's first words may take.
const ANSWER: Duration = Duration::from_secs(5);
const PORT: u16 = 4222;

/// A queue. It has no `Debug`: the password belongs in no message.
pub(crate) struct Queue {
    /// With user and password.
    pub url: String,
    pub account: String,
    /// Host and port.
    pub host: String,
    /// The key file that says all this, unless the address was given.
    pub key_file: Option<PathBuf>,
    /// Whether other users of this machine can read the key file.
    pub is_open: bool,
}

impl Queue {
    /// The queue at `url` with `account`, from flags or environment; else that of the key file, each as the
    /// configuration names it if nothing else does. None if there is neither.
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
        // A key file that was named beats an address in the configuration.
        let url = url.or_else(|| config.nats_url.as_deref().filter(|_| global.keyfile.is_none()));
        if let Some(url) = url {
            return of_url(url, account).map(Some);
        }
        let named = global.keyfile.as_deref().or(config.keyfile.as_deref());
        let Some(key) = Key::load(named)? else { return Ok(None) };
        let host = if has_port(&key.domain) { key.domain.clone() } else { format!("{}:{PORT}", key.domain) };
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        Ok(Some(Queue {
            url: format!("nats://{}:{}@{host}", encoded(&key.account), encoded(&key.password)),
            account: account.unwrap_or(&key.account).to_owned(),
            host,
            key_file: Some(key.path),
            is_open: key.is_open,
        }))
    }

    /// Whether a NATS server answers there: its version.
    ///
    /// # Errors
    /// A sentence that ends with what to do, after a semicolon.
    pub(crate) async fn version(&self) -> Result<String, String> {
        let greeting = async {
            let mut line = String::new();
            BufReader::new(TcpStream::connect(&self.host).await?).read_line(&mut line).await?;
            std::io::Result::Ok(line)
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

fn of_url(url: &str, account: Option<&str>) -> Result<Queue, String> {
    let form = "give it the form nats://ACCOUNT:PASSWORD@HOST:4222";
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    if !matches!(scheme, "nats" | "tls") {
        return Err(format!("the queue's address begins with neither nats:// nor tls://; {form}"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        return Err(format!("the queue's address names no host; {form}"));
    }
    let user = user.and_then(|user| user.split(':').next()).filter(|user| !user.is_empty());
    let user = user.map(|user| percent_decode_str(user).decode_utf8_lossy().into_owned());
    let Some(account) = account.map(str::to_owned).or(user) else {
        return Err(format!("the queue's address names no account; {form}, or give --account"));
    };
    let is_whole = has_port(host);
    Ok(Queue {
        url: format!("{scheme}://{authority}{}", if is_whole { String::new() } else { format!(":{PORT}") }),
        account,
        host: if is_whole { host.into() } else { format!("{host}:{PORT}") },
        key_file: None,
        is_open: false,
    })
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
        && (!host.starts_with('[') || host.contains("]:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("nats://acc:pw@h:1", None, "acc", "h:1", "nats://acc:pw@h:1")]
    #[case("acc@h", None, "acc", "h:4222", "nats://acc@h:4222")]
    #[case("tls://a%40b:p%2Fw@[::1]/", None, "a@b", "[::1]:4222", "tls://a%40b:p%2Fw@[::1]:4222")]
    #[case("nats://[::1]:5", Some("acc"), "acc", "[::1]:5", "nats://[::1]:5")]
    #[case("nats://user:pw@h", Some("acc"), "acc", "h:4222", "nats://user:pw@h:4222")]
    fn an_address_says_who_and_where(
        #[case] url: &str,
        #[case] account: Option<&str>,
        #[case] expected: &str,
        #[case] host: &str,
        #[case] whole: &str,
    ) {
        let Ok(queue) = of_url(url, account) else { panic!("{url} is an address") };
        assert_eq!((&*queue.account, &*queue.host, &*queue.url), (expected, host, whole));
    }

    #[rstest]
    #[case("http://secret@h", "the queue's address begins with neither nats:// nor tls://")]
    #[case("nats://secret:secret@", "the queue's address names no host")]
    #[case("nats://h:4222", "the queue's address names no account")]
    #[case("nats://:secret@h:4222", "the queue's address names no account")]
    fn what_is_wrong_is_said_without_the_password(#[case] url: &str, #[case] expected: &str) {
        let Err(error) = of_url(url, None) else { panic!("{url} is no address") };
        assert!(error.starts_with(expected) && !error.contains("secret"), "{error}");
    }
}
