//! Tests that need the cluster to themselves: counts of requests, a node that is full, servers that go away.

mod node;
mod outage;
mod room;

use hops_k8s::pods::Pods;
use hops_k8s_tests::cluster::service::{Seen, awaited, kill, kube, no_pods, process, request, start};
use hops_k8s_tests::cluster::{Cluster, MINUTE, Route, audit_log};
use hops_k8s_tests::nats::{Installation, Server};
use hops_k8s_tests::{Document, call, eventually};
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

const CALLS: usize = 50;
/// How often a watch is opened anew.
const WATCH_SECONDS: u64 = 25;

/// Held by each test, so that none counts the requests of another or takes room from it.
static ALONE: Mutex<()> = Mutex::const_new(());

#[rstest]
#[case::pod_ip(Route::PodIp, false)]
#[case::port_forward_with_input_files(Route::PortForward, true)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn fifty_calls_at_once_share_one_watch_and_make_at_most_four_requests_each(
    #[case] route: Route,
    #[case] with_files: bool,
) {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(route).await;
    let (pods, requests) = cluster.with_requests(route).await;
    let audit = Audit::open(&cluster);

    let start = Instant::now();
    let calls: Vec<_> = (0..CALLS)
        .map(|number| {
            let mut inputs = cluster.inputs(json!({
                "command": ["bash", "-c", format!("echo '{{\"number\": {number}}}' > /output/result.json")],
                "start_timeout": "5m",
            }));
            if with_files {
                inputs["in_files"] = json!({"a.txt": number.to_string()});
            }
            let pods = pods.clone();
            tokio::spawn(async move { call(pods, &inputs).await.unwrap() })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        let document = Document::parse(&call.await.unwrap());
        assert_eq!((document.error(), document.json()), ("", &json!({"number": number})));
    }
    pods.drained().await;
    let took = start.elapsed();
    println!("{CALLS} calls by {route:?} took {took:?}: {:?}", requests.counts());

    let mut kinds = vec!["create pods", "delete pods"];
    kinds.extend(with_files.then_some("create configmaps"));
    kinds.extend((route == Route::PortForward).then_some("get pods/portforward"));
    let mut counts = requests.counts();
    let watches = counts.remove("watch pods").unwrap_or_default();
    assert!((1..=1 + took.as_secs() / WATCH_SECONDS).contains(&(watches as u64)), "{watches} watches in {took:?}");
    // The watch first finds out that it may not list the pods of all namespaces.
    assert_eq!([counts.remove("list all pods"), counts.remove("list pods")], [Some(1); 2]);
    let wrong: Vec<_> = counts.iter().filter(|(what, count)| !is_once_a_call(what, **count)).collect();
    assert!(counts.len() == kinds.len() && wrong.is_empty(), "{counts:?}");
    if let Some(audit) = audit {
        audit.check(kinds.len());
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn two_hundred_requests_have_two_hundred_pods_though_one_of_two_workers_is_killed() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PodIp).await;
    let server = Server::start_for(&cluster.namespace, 1024 * 1024);
    let installation = Installation::start(&server).await;
    let seen = Seen::watch(&cluster);
    let killed = start(&server, Arc::new(kube().await)).await;
    let worker = start(&server, Arc::new(kube().await)).await;
    request(&cluster, &installation, 0..200, 0, json!({"start_timeout": "5m"})).await;
    seen.at_least(80).await;
    kill(killed).await;
    awaited(&installation, 200).await;
    installation.all_answered().await;
    // A worker that starts deletes the pods whose results the killed worker had published.
    kill(worker).await;
    let last = start(&server, Arc::new(kube().await)).await;
    no_pods(&cluster).await;
    assert_eq!(seen.count(), 200, "pods created");
    kill(last).await;
    cluster.end().await;
}

/// The worker is a process of its own, so that no other test opens files in it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_worker_that_has_answered_holds_nothing_open() {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(Route::PortForward).await;
    let server = Server::start_for(&cluster.namespace, 1024 * 1024);
    let installation = Installation::start(&server).await;
    let worker = process(&server, &["--port-forward"]);
    let folder = format!("/proc/{}/fd", worker.0.id());
    let open = || fs::read_dir(&folder).unwrap().count();
    request(&cluster, &installation, 0..1, 0, json!({"in_files": {"a": "b"}})).await;
    awaited(&installation, 1).await;
    no_pods(&cluster).await;
    let before = open();
    request(&cluster, &installation, 1..40, 0, json!({"in_files": {"a": "b"}, "start_timeout": "5m"})).await;
    awaited(&installation, 40).await;
    installation.all_answered().await;
    no_pods(&cluster).await;
    eventually("what the calls had opened is closed", MINUTE, async || {
        if open() <= before { Ok(()) } else { Err(format!("{} files instead of {before}", open())) }
    })
    .await;
    drop(worker);
    cluster.end().await;
}

/// Whether the calls made as many of these requests as there are calls. Port-forwards do not reach that yet: some are made
/// again, 9 of 50 calls on a busy machine.
fn is_once_a_call(what: &str, count: usize) -> bool {
    if what == "get pods/portforward" { (CALLS..=CALLS * 2).contains(&count) } else { count == CALLS }
}

/// The part of the API server's audit log that is written after this was opened: what the server has seen of the calls.
struct Audit {
    log: BufReader<fs::File>,
    user: String,
}

impl Audit {
    fn open(cluster: &Cluster) -> Option<Self> {
        let mut log = BufReader::new(audit_log()?);
        log.seek(SeekFrom::End(0)).unwrap();
        Some(Audit { log, user: cluster.user() })
    }

    /// Checks that the calls made this many kinds of requests, each kind exactly once a call. Requests of the watch are
    /// not a call's.
    fn check(self, kinds: usize) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for line in self.log.lines() {
            let entry: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if entry["user"]["username"] == self.user && entry["stage"] == "ResponseComplete" {
                let object = &entry["objectRef"];
                let words = [&entry["verb"], &object["resource"], &object["subresource"]];
                let what: Vec<&str> = words.into_iter().filter_map(Value::as_str).collect();
                *counts.entry(what.join(" ")).or_default() += 1;
            }
        }
        println!("audit log: {counts:?}");
        counts.retain(|what, _| what != "list pods" && what != "watch pods");
        assert!(counts.len() == kinds && counts.iter().all(|(what, count)| is_once_a_call(what, *count)), "{counts:?}");
    }
}
