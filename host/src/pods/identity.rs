//! Who a pod is.

use std::collections::BTreeMap;

/// What a pod is found by: a call that is made again under the same identity gets the pod that it has already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pod's name: a DNS label, one of a kind in its namespace.
    pub name: String,
    /// What pods can be selected by: Kubernetes labels.
    pub labels: BTreeMap<String, String>,
    /// What the pod is to tell about where it comes from, without the limits that labels have.
    pub annotations: BTreeMap<String, String>,
    /// The pod stays when its call is dropped, for the next one of this identity; it ends with `Pod::delete` alone.
    pub outlives_call: bool,
}

impl Identity {
    /// A pod like no other, which goes with its call.
    pub fn random() -> Self {
        let uuid = uuid::Uuid::new_v4();
        Identity {
            name: format!("hiphops-run-{}", uuid.simple()),
            labels: BTreeMap::from([
                ("hiphops-io/sequence_id".into(), uuid.to_string()),
                ("hiphops-io/uuid".into(), uuid.to_string()),
            ]),
            annotations: BTreeMap::new(),
            outlives_call: false,
        }
    }
}
