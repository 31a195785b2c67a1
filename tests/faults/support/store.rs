//! The objects of a cluster, and what happened to its pods.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A namespace and a name.
pub type Key = (String, String);

/// What the API server says to a request: a status code and an object.
pub type Answer = (u16, Value);

/// One line of a watch.
#[derive(Clone)]
pub struct Event {
    pub version: u64,
    pub kind: &'static str,
    pub pod: Value,
}

impl Event {
    pub fn line(&self) -> Value {
        json!({"type": self.kind, "object": self.pod})
    }
}

#[derive(Default)]
pub struct Store {
    pub version: u64,
    /// Events up to this version cannot be replayed.
    pub forgotten: u64,
    pub pods: BTreeMap<Key, Value>,
    pub config_maps: BTreeMap<Key, Value>,
    pub events: Vec<Event>,
    /// How many pods have been created.
    pub created: usize,
}

impl Store {
    pub fn create_pod(&mut self, namespace: &str, mut pod: Value) -> Answer {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let key = (namespace.to_owned(), name.clone());
        if self.pods.contains_key(&key) {
            return status(409, "AlreadyExists", &format!("pods {name:?} already exists"));
        }
        self.created += 1;
        let metadata = &mut pod["metadata"];
        metadata["namespace"] = namespace.into();
        metadata["uid"] = format!("uid-{}", self.created).into();
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        pod["status"] = json!({"phase": "Pending"});
        self.put("ADDED", key, pod)
    }

    pub fn create_config_map(&mut self, namespace: &str, map: Value) -> Answer {
        let name = map["metadata"]["name"].as_str().unwrap().to_owned();
        let key = (namespace.to_owned(), name.clone());
        if self.config_maps.contains_key(&key) {
            return status(409, "AlreadyExists", &format!("configmaps {name:?} already exists"));
        }
        self.config_maps.insert(key, map.clone());
        self.collect_garbage();
        (201, map)
    }

    pub fn get_pod(&self, key: &Key) -> Answer {
        self.pods.get(key).map_or_else(|| not_found(&key.1), |pod| (200, pod.clone()))
    }

    /// A page of the pods of a namespace, or of all namespaces: at most `limit`, from the one that follows `after`.
    pub fn list(&self, namespace: Option<&str>, limit: usize, after: &str) -> Answer {
        let of_namespace = |key: &&Key| namespace.is_none_or(|namespace| namespace == key.0);
        let mut rest = self.pods.keys().filter(of_namespace).filter(|key| *key.1 > *after).peekable();
        let page: Vec<&Key> = rest.by_ref().take(limit).collect();
        let more = rest.peek().and(page.last()).map_or("", |last| &last.1);
        let items: Vec<&Value> = page.iter().map(|key| &self.pods[*key]).collect();
        let metadata = json!({"resourceVersion": self.version.to_string(), "continue": more});
        (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    /// Marks a pod as being deleted, unless its uid is another.
    pub fn delete_pod(&mut self, key: &Key, uid: Option<&str>) -> Answer {
        let Some(pod) = self.pods.get(key) else { return not_found(&key.1) };
        if uid.is_some_and(|uid| pod["metadata"]["uid"] != uid) {
            return status(409, "Conflict", "Precondition failed: UID in precondition");
        }
        let mut pod = pod.clone();
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z".into();
        self.put("MODIFIED", key.clone(), pod)
    }

    /// Removes the pod with this uid, and the ConfigMaps that it owned.
    pub fn remove_pod(&mut self, uid: &str) {
        let is_it = |pod: &Value| pod["metadata"]["uid"] == uid;
        let Some(key) = self.pods.iter().find_map(|(key, pod)| is_it(pod).then(|| key.clone())) else { return };
        let pod = self.pods[&key].clone();
        self.put("DELETED", key.clone(), pod);
        self.pods.remove(&key);
        self.collect_garbage();
    }

    /// Sets the status of a pod, unless it is gone or being deleted.
    pub fn set_status(&mut self, uid: &str, status: Value) {
        let is_it = |pod: &Value| pod["metadata"]["uid"] == uid && pod["metadata"]["deletionTimestamp"].is_null();
        let Some((key, pod)) = self.pods.iter().find(|(_, pod)| is_it(pod)) else { return };
        let (key, mut pod) = (key.clone(), pod.clone());
        pod["status"] = status;
        self.put("MODIFIED", key, pod);
    }

    fn put(&mut self, kind: &'static str, key: Key, mut pod: Value) -> Answer {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.pods.insert(key, pod.clone());
        self.events.push(Event { version: self.version, kind, pod: pod.clone() });
        (if kind == "ADDED" { 201 } else { 200 }, pod)
    }

    fn collect_garbage(&mut self) {
        let uids: Vec<Value> = self.pods.values().map(|pod| pod["metadata"]["uid"].clone()).collect();
        self.config_maps.retain(|_, map| uids.contains(&map["metadata"]["ownerReferences"][0]["uid"]));
    }
}

fn not_found(name: &str) -> Answer {
    status(404, "NotFound", &format!("pods {name:?} not found"))
}

/// An answer with a `Status` object.
pub fn status(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    (code, status)
}
