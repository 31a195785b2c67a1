//! The key file: the account of hops, its password and the host of its queue.

use super::config::in_home;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The content of a key file. It has no `Debug`, because the password must not be in messages.
pub(crate) struct Key {
    pub account: String,
    pub password: String,
    pub domain: String,
    /// The file.
    pub path: PathBuf,
    /// Whether other users of this machine can read it.
    pub is_open: bool,
}

impl Key {
    /// Reads the file that is named, or else the one in the home directory; `None` if that does not exist.
    ///
    /// # Errors
    /// A sentence that ends with what to do, after a semicolon, and shows nothing of the content.
    pub(crate) fn load(named: Option<&Path>) -> Result<Option<Self>, String> {
        let Some(path) = named.map(Path::to_owned).or_else(|| in_home("hiphops.key")) else { return Ok(None) };
        let read = || io::Result::Ok((std::fs::read(&path)?, std::fs::metadata(&path)?.permissions().mode()));
        let (bytes, mode) = match read() {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => return Ok(None),
            Err(error) => {
                return Err(format!(
                    "the key file {} cannot be read: {error}; name the one that you got from hops with --keyfile",
                    path.display()
                ));
            }
        };
        let [account, password, domain] = parse(&bytes)
            .map_err(|why| format!("the key file {} cannot be used: {why}; get it from hops again", path.display()))?;
        Ok(Some(Key { account, password, domain, path, is_open: mode & 0o077 != 0 }))
    }
}

fn parse(bytes: &[u8]) -> Result<[String; 3], String> {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if text.is_empty() {
        return Err("it is empty".into());
    }
    let decoded = BASE64.decode(text).map_err(|_| "it is not base64")?;
    let content: Value = serde_json::from_slice(&decoded).map_err(|_| "what it encodes is not JSON")?;
    let Value::Object(content) = content else { return Err("what it encodes is not a JSON object".into()) };
    let field = |name: &str| match content.get(name) {
        None => Err(format!("{name} is missing in it")),
        Some(Value::String(text)) if text.is_empty() => Err(format!("its {name} is empty")),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("its {name} is not a string")),
    };
    let domain = field("nats_domain")?;
    if !domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte)) {
        return Err("its nats_domain is not the name of a host".into());
    }
    Ok([field("account_id")?, field("password")?, domain])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain(|text: String| text)]
    #[case::wrapped(|text: String| format!("\n {}\r\n{}\n", &text[..20], &text[20..]))]
    #[case::without_padding(|text: String| text.trim_end_matches('=').to_owned())]
    fn a_key_is_read_however_it_is_written(#[case] write: fn(String) -> String) {
        let json = r#"{"account_id":"a1","password":"p@/w","nats_domain":"nats.example.com","more":1}"#;
        let [account, password, domain] = parse(write(BASE64.encode(json)).as_bytes()).unwrap();
        assert_eq!([&*account, &password, &domain], ["a1", "p@/w", "nats.example.com"]);
    }

    #[rstest]
    #[case::empty("\n", "it is empty")]
    #[case::not_base64("se{cret}", "it is not base64")]
    #[case::not_json(&BASE64.encode("secret"), "what it encodes is not JSON")]
    #[case::no_object(&BASE64.encode("\"secret\""), "what it encodes is not a JSON object")]
    #[case::no_account(&BASE64.encode(r#"{"password":"secret","nats_domain":"d"}"#), "account_id is missing in it")]
    #[case::no_password(&BASE64.encode(r#"{"account_id":"a","nats_domain":"d"}"#), "password is missing in it")]
    #[case::no_domain(&BASE64.encode(r#"{"account_id":"a","password":"secret"}"#), "nats_domain is missing in it")]
    #[case::empty_field(&BASE64.encode(r#"{"account_id":"","password":"secret","nats_domain":"d"}"#), "its account_id is empty")]
    #[case::number(&BASE64.encode(r#"{"account_id":"a","password":5,"nats_domain":"d"}"#), "its password is not a string")]
    #[case::domain(&BASE64.encode(r#"{"account_id":"a","password":"secret","nats_domain":"d/e"}"#), "its nats_domain is not the name of a host")]
    fn an_error_does_not_show_the_content(#[case] text: &str, #[case] expected: &str) {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error, expected);
        assert!(!error.contains("secret"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text: String) {
            for bytes in [&bytes[..], text.as_bytes(), BASE64.encode(&bytes).as_bytes(), BASE64.encode(&text).as_bytes()] {
                if let Err(error) = parse(bytes) {
                    prop_assert!(error.len() < 60, "{error}");
                }
            }
        }

        #[test]
        fn a_key_is_read_back_unchanged(account in any::<String>(), password in any::<String>(), domain in "[a-z0-9.:-]{1,99}") {
            let json = serde_json::json!({"account_id": account, "password": password, "nats_domain": domain});
            match parse(BASE64.encode(json.to_string()).as_bytes()) {
                Ok(read) => prop_assert_eq!(read, [account, password, domain]),
                Err(_) => prop_assert!(account.is_empty() || password.is_empty()),
            }
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = BASE64.encode("[".repeat(100_000));
        assert_eq!(parse(text.as_bytes()).unwrap_err(), "what it encodes is not JSON");
    }
}
