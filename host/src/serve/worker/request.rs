//! The subject of a request, and the identity of its pod.

use crate::pods::Identity;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const ACCOUNT: &str = "hiphops-io/account";
/// The annotation that names a pod's request. Labels are too short for that.
const REQUEST: &str = "hiphops-io/request";

/// The parts of a request's subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    account: String,
    pub sequence: String,
    pub message: String,
    pub app: String,
    pub handler: String,
}

impl Request {
    /// Parses `ACCOUNT.request.SEQUENCE.MESSAGE.APP.HANDLER`. More tokens may follow.
    pub(super) fn parse(account: &str, subject: &str) -> Option<Self> {
        Self::of(account, subject.strip_prefix(account)?.strip_prefix(".request.")?)
    }

    /// The request of a pod.
    pub(super) fn of_pod(account: &str, annotations: &BTreeMap<String, String>) -> Option<Self> {
        Self::of(account, annotations.get(REQUEST)?)
    }

    fn of(account: &str, rest: &str) -> Option<Self> {
        let mut tokens = rest.split('.').filter(|token| !token.is_empty()).map(str::to_owned);
        Some(Request {
            account: account.into(),
            sequence: tokens.next()?,
            message: tokens.next()?,
            app: tokens.next()?,
            handler: tokens.next()?,
        })
    }

    /// The subject of its result.
    pub(super) fn notify(&self) -> String {
        format!("{}.notify.{}.{}", self.account, self.sequence, self.message)
    }

    /// Its own subject.
    pub(super) fn subject(&self) -> String {
        format!("{}.request.{}", self.account, self.tail())
    }

    fn tail(&self) -> String {
        format!("{}.{}.{}.{}", self.sequence, self.message, self.app, self.handler)
    }

    /// The identity of its pod: the same in every worker and at every delivery.
    pub(super) fn identity(&self) -> Identity {
        let digest = hash(&[&self.account, &self.sequence, &self.message], 32);
        let mut labels = account_label(&self.account);
        labels.extend([
            ("hiphops-io/sequence_id".into(), label(&self.sequence)),
            ("hiphops-io/message_id".into(), label(&self.message)),
            ("hiphops-io/uuid".into(), digest.clone()),
        ]);
        Identity {
            name: format!("hiphops-run-{digest}"),
            labels,
            annotations: BTreeMap::from([(REQUEST.into(), self.tail())]),
            outlives_call: true,
        }
    }
}

/// Selects the pods of an account. The account itself is half of a login, so the label has only its hash.
pub(super) fn account_label(account: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(ACCOUNT.into(), hash(&[account], 16))])
}

/// The token if it is valid as the value of a label, else its hash.
fn label(token: &str) -> String {
    let is_alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_label = token.len() <= 63
        && token.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && is_alphanumeric(token.chars().next())
        && is_alphanumeric(token.chars().last());
    if is_label { token.into() } else { hash(&[token], 32) }
}

fn hash(parts: &[&str], digits: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
        hasher.update([0]);
    }
    hasher.finalize().iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).map(char::from).take(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::six_tokens("acc.request.s.m.k8s.run")]
    #[case::more_tokens("acc.request.s.m.k8s.run.more")]
    fn a_request_is_parsed(#[case] subject: &str) {
        let request = Request::parse("acc", subject).unwrap();
        assert_eq!((&*request.app, &*request.handler), ("k8s", "run"));
        assert_eq!(request.notify(), "acc.notify.s.m");
        assert_eq!(request.subject(), "acc.request.s.m.k8s.run");
        assert_eq!(Request::of_pod("acc", &request.identity().annotations), Some(request));
    }

    #[rstest]
    #[case::five_tokens("acc.request.s.m.k8s")]
    #[case::empty_tokens("acc.request.s..k8s.run")]
    #[case::another_account("accc.request.s.m.k8s.run")]
    #[case::another_interface("acc.notify.s.m.k8s.run")]
    fn another_subject_is_not_a_request(#[case] subject: &str) {
        assert_eq!(Request::parse("acc", subject), None);
    }

    #[rstest]
    #[case::a_plain_one("seq", "message")]
    #[case::tokens_that_are_not_labels("$seq=", &"m".repeat(100))]
    fn an_identity_is_valid_and_unique(#[case] sequence: &str, #[case] message: &str) {
        let identity = |account: &str| {
            Request::parse(account, &format!("{account}.request.{sequence}.{message}.k8s.run")).unwrap().identity()
        };
        let one = identity("acc");
        assert_eq!(one, identity("acc"));
        assert!(one.name.len() <= 63 && one.name.starts_with("hiphops-run-"));
        for value in one.labels.values() {
            assert_eq!(&label(value), value);
        }
        let other = identity("other");
        assert!(one.name != other.name && one.labels[ACCOUNT] != other.labels[ACCOUNT]);
    }

    proptest! {
        #[test]
        fn any_subject_is_a_unique_request_or_none(account: String, rest in prop_oneof![".*", "([a$]?[.]){3,6}.*"]) {
            let _ = Request::parse(&account, &rest);
            if let Some(request) = Request::parse(&account, &format!("{account}.request.{rest}")) {
                prop_assert_eq!(Request::parse(&account, &request.subject()), Some(request.clone()));
                let identity = request.identity();
                prop_assert!(identity.name.len() <= 63);
                prop_assert!(identity.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
                for value in identity.labels.values() {
                    prop_assert_eq!(&label(value), value);
                }
                prop_assert_eq!(Request::of_pod(&account, &identity.annotations), Some(request));
            }
        }
    }
}
