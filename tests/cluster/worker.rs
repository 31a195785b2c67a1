//! Workers that are killed, on a real cluster and a real nats-server: one pod and one result for each request.

use async_trait::async_trait;
use hops_k8s::pods::kube::KubePods;
use hops_k8s::pods::{ContainerState, Error, FoundPod, Identity, Pod, PodSpec, PodStatus, Pods};
use hops_k8s_tests::cluster::service::{Seen, awaited, kill, kube, no_pods, process, request, start};
use hops_k8s_tests::cluster::{Cluster, MINUTE, Route};
use hops_k8s_tests::nats::{Installation, Server};
use hops_k8s_tests::{dir_with, eventually};
use rstest::rstest;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncRead;
use tokio::sync::Notify;
use tokio::time::timeout;

/// The point in a call at which a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    BeforeCreate,
    AfterCreate,
    WhileRunning,
    /// The result was read, and is not yet in the queue.
    AfterFetch,
    /// The result is in the queue, and the request is not yet acknowledged.
    AfterPublish,
    /// The request is acknowledged, and the pod is not yet deleted.
    AfterAcknowledge,
}

/// Pods of a cluster, on which a worker gets to a point and no further.
struct Halting {
    pods: KubePods,
    halt: Arc<Halt>,
}

struct Halt {
    point: Point,
    reached: Notify,
}

impl Halt {
    async fn at(&self, point: Point) {
        if point == self.point {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Pods for Halting {
    async fn create(&self, spec: PodSpec, identity: Identity) -> Result<Box<dyn Pod>, Error> {
        self.halt.at(Point::BeforeCreate).await;
        let pod = self.pods.create(spec, identity).await?;
        self.halt.at(Point::AfterCreate).await;
        Ok(Box::new(HaltingPod { pod, halt: self.halt.clone() }))
    }

    async fn find(&self, labels: &BTreeMap<String, String>) -> Result<Vec<FoundPod>, Error> {
        self.pods.find(labels).await
    }
}

struct HaltingPod {
    pod: Box<dyn Pod>,
    halt: Arc<Halt>,
}

#[async_trait]
impl Pod for HaltingPod {
    fn name(&self) -> &str {
        self.pod.name()
    }

    async fn changed(&mut self) -> Result<PodStatus, Error> {
        let status = self.pod.changed().await?;
        // The first status of a short run may be its end.
        if !matches!(status.main, ContainerState::Waiting(_)) {
            self.halt.at(Point::WhileRunning).await;
        }
        Ok(status)
    }

    async fn read_file(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let content = self.pod.read_file(path, limit).await;
        self.halt.at(Point::AfterFetch).await;
        self.halt.at(Point::AfterPublish).await;
        content
    }

    async fn tail_logs(&mut self, lines: u32) -> Result<String, Error> {
        self.pod.tail_logs(lines).await
    }

    async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error> {
        self.pod.follow_logs().await
    }

    async fn delete(&mut self) -> Result<(), Error> {
        self.halt.at(Point::AfterAcknowledge).await;
        self.pod.delete().await
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_request_of_a_killed_worker_has_one_pod_and_one_result(
    #[values(
        Point::BeforeCreate,
        Point::AfterCreate,
        Point::WhileRunning,
        Point::AfterFetch,
        Point::AfterPublish,
        Point::AfterAcknowledge
    )]
    point: Point,
) {
    let cluster = Cluster::start(Route::PodIp).await;
    let server = Server::start_for(&cluster.namespace, 1024 * 1024);
    let installation = Installation::start(&server).await;
    let seen = Seen::watch(&cluster);
    let halt = Arc::new(Halt { point, reached: Notify::new() });
    let killed = start(&server, Arc::new(Halting { pods: kube().await, halt: halt.clone() })).await;
    let inputs = cluster.inputs(json!({
        "in_files": {"a": "b"},
        "command": ["bash", "-c", "sleep 2; echo \"[\\\"$HOSTNAME\\\"]\" > /output/result.json"],
    }));
    installation.request("seq", "call", inputs.to_string()).await;
    timeout(MINUTE, halt.reached.notified()).await.expect("the worker reaches the point within a minute");
    kill(killed).await;
    if point == Point::AfterPublish {
        // What the killed worker would have published.
        let result = json!({
            "hops": {"started_at": "2026-01-01T00:00:00.000Z", "finished_at": "2026-01-01T00:00:00.000Z", "error": null},
            "errored": false, "completed": true, "done": true, "body": "", "json": ["hiphops-run-published"],
        });
        installation.publish("notify.seq.call", result.to_string()).await;
    }

    let worker = start(&server, Arc::new(kube().await)).await;
    let document = installation.awaited("seq", "call").await;
    assert_eq!(document.error(), "");
    let host = document.json()[0].as_str().unwrap();
    assert_eq!(host == "hiphops-run-published", point == Point::AfterPublish, "the result of the pod");
    assert!(document.json()[0].as_str().unwrap().starts_with("hiphops-run-"), "{document:?}");
    installation.all_answered().await;
    no_pods(&cluster).await;
    assert_eq!(seen.count(), 1, "pods created");
    kill(worker).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_process_that_is_killed_loses_nothing_to_another() {
    let cluster = Cluster::start(Route::PodIp).await;
    let server = Server::start_for(&cluster.namespace, 1024 * 1024);
    let installation = Installation::start(&server).await;
    let seen = Seen::watch(&cluster);
    let killed = process(&server, &[]);
    let _worker = process(&server, &[]);
    request(&cluster, &installation, 0..30, 0, json!({"start_timeout": "5m"})).await;
    seen.at_least(10).await;
    drop(killed);
    let _again = process(&server, &[]);
    awaited(&installation, 30).await;
    installation.all_answered().await;
    no_pods(&cluster).await;
    assert_eq!(seen.count(), 30, "pods created");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_process_that_drains_leaves_its_pods_to_the_next() {
    let cluster = Cluster::start(Route::PodIp).await;
    let server = Server::start_for(&cluster.namespace, 1024 * 1024);
    let installation = Installation::start(&server).await;
    let seen = Seen::watch(&cluster);
    let mut worker = process(&server, &["--drain", "2s"]);
    request(&cluster, &installation, 0..20, 20, json!({"start_timeout": "5m"})).await;
    seen.at_least(20).await;
    let start = Instant::now();
    assert!(Command::new("kill").arg(worker.0.id().to_string()).status().unwrap().success());
    assert!(worker.0.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    let _next = process(&server, &[]);
    awaited(&installation, 20).await;
    installation.all_answered().await;
    no_pods(&cluster).await;
    assert_eq!(seen.count(), 20, "pods created");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_policy_that_is_replaced_holds_for_the_requests_after_it() {
    let cluster = Cluster::start(Route::PodIp).await;
    let server = Server::start_for(&cluster.namespace, 1024 * 1024);
    let installation = Installation::start(&server).await;
    let seen = Seen::watch(&cluster);
    let dir = dir_with(&[("policy.yaml", "namespaces: [hops-test-*]\nmax-timeout: 30s\n")]);
    let policy = dir.path().join("policy.yaml");
    let worker = process(&server, &["--policy", policy.to_str().unwrap()]);
    request(&cluster, &installation, 0..5, 5, json!({})).await;
    request(&cluster, &installation, 5..6, 600, json!({})).await;
    seen.at_least(6).await;

    fs::write(&policy, "namespaces: [others]\n").unwrap();
    assert!(Command::new("kill").args(["-HUP", &worker.0.id().to_string()]).status().unwrap().success());
    let mut number = 5;
    eventually("the new policy holds", MINUTE, async || {
        number += 1;
        request(&cluster, &installation, number..number + 1, 0, json!({})).await;
        let document = installation.awaited("seq", &number.to_string()).await;
        if document.error().starts_with("PolicyDenied: ") { Ok(()) } else { Err(document) }
    })
    .await;
    // The requests that ran already keep their policy, with its limit of time.
    awaited(&installation, 5).await;
    let document = installation.awaited("seq", "5").await;
    assert!(document.error().starts_with("Timeout: "), "{document:?}");
    installation.all_answered().await;
    no_pods(&cluster).await;
    cluster.end().await;
}

fn spec(cluster: &Cluster) -> PodSpec {
    PodSpec {
        namespace: cluster.namespace.clone(),
        image: "bash:5-alpine3.18".into(),
        command: vec!["sleep".into(), "600".into()],
        args: vec![],
        env: vec![],
        cpu: "10m".into(),
        memory: "32Mi".into(),
        input_dir: "/input".into(),
        input_files: vec![],
        output_dir: "/output".into(),
        lifetime_ms: 600_000,
        keep: false,
        service_account: None,
        image_pull_secrets: vec![],
        node_selector: vec![],
    }
}

/// Waits until the pod's container runs.
async fn runs(pod: &mut dyn Pod) {
    let running = async { while pod.changed().await.unwrap().main != ContainerState::Running {} };
    timeout(MINUTE, running).await.expect("the container runs within a minute");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_pod_that_is_being_deleted_is_not_adopted_but_created_anew() {
    let cluster = Cluster::start(Route::PodIp).await;
    let seen = Seen::watch(&cluster);
    let identity = Identity { outlives_call: true, ..Identity::random() };
    let mut pod = cluster.pods.create(spec(&cluster), identity.clone()).await.unwrap();
    runs(&mut *pod).await;
    pod.delete().await.unwrap();
    drop(pod);
    let mut pod = cluster.pods.create(spec(&cluster), identity).await.unwrap();
    assert!(!pod.is_adopted());
    runs(&mut *pod).await;
    pod.delete().await.unwrap();
    assert_eq!(seen.count(), 2);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn somebody_elses_pod_of_the_same_name_is_left_alone() {
    let cluster = Cluster::start(Route::PodIp).await;
    let identity = Identity { outlives_call: true, ..Identity::random() };
    let other = Identity { name: identity.name.clone(), ..Identity::random() };
    let mut pod = cluster.pods.create(spec(&cluster), identity).await.unwrap();
    let Err(error) = cluster.pods.create(spec(&cluster), other).await else { panic!("the name is taken") };
    assert!(matches!(&error, Error::Other(why) if why.contains("is in the way")), "{error:?}");
    cluster.pods.drained().await;
    assert!(cluster.the_pod().await.metadata.deletion_timestamp.is_none());
    pod.delete().await.unwrap();
    cluster.end().await;
}
