//! Tests that need the cluster to themselves: counts of requests, a node that is full, servers that go away.

mod node;
mod outage;
mod room;

use hops_k8s_tests::cluster::service::{Seen, awaited, kill, kube, no_pods, process, request, start};
use hops_k8s_tests::cluster::{Cluster, MINUTE, Route, audit_log};
use hops_k8s_tests::nats::{Installation, Server};
use hops_k8s_tests::{Document, call, eventually};
use kube::Client;
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::mem::replace;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::sleep;

const CALLS: usize = 50;

/// Held by each test, so that none counts the requests of another or takes room from it.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A metric of the API server, summed over all series with these labels.
async fn metric(client: &Client, name: &str, labels: &[&str]) -> u64 {
    let request = http::Request::get("/metrics").body(vec![]).unwrap();
    let text = client.request_text(request).await.unwrap();
    let matching = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let matching = matching.filter(|line| labels.iter().all(|label| line.contains(label)));
    matching.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

async fn watches(client: &Client) -> u64 {
    metric(client, "apiserver_longrunning_requests", &[r#"resource="pods""#, r#"verb="WATCH""#]).await
}

/// The number of watches after those of the test before have ended.
async fn settled_watches(client: &Client) -> u64 {
    let mut before = watches(client).await;
    eventually("the number of watches stays the same for 2 s", MINUTE, async || {
        sleep(Duration::from_secs(2)).await;
        let now = watches(client).await;
        if replace(&mut before, now) == now { Ok(now) } else { Err(now) }
    })
    .await
}

async fn requests(client: &Client, verb: &str, resource: &str, subresource: &str) -> u64 {
    let labels = [format!("verb={verb:?}"), format!("resource={resource:?}"), format!("subresource={subresource:?}")];
    metric(client, "apiserver_request_total", &labels.each_ref().map(String::as_str)).await
}

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
    let client = cluster.client.clone();
    let audit = Audit::open(&cluster);
    let watches_before = settled_watches(&client).await;
    let count = async || {
        [requests(&client, "POST", "pods", "").await, requests(&client, "CONNECT", "pods", "portforward").await]
    };
    let before = count().await;

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
            let pods = cluster.pods.clone();
            tokio::spawn(async move { call(pods, &inputs).await.unwrap() })
        })
        .collect();
    eventually("the calls have opened a watch on pods", MINUTE, async || {
        watches(&client).await.checked_sub(watches_before).filter(|&opened| opened > 0).ok_or("not yet")
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(watches(&client).await - watches_before, 1, "watches on pods that the calls have opened");
    for (number, call) in calls.into_iter().enumerate() {
        let document = Document::parse(&call.await.unwrap());
        assert_eq!((document.error(), document.json()), ("", &json!({"number": number})));
    }
    println!("{CALLS} calls by {route:?} took {:?}", start.elapsed());

    let after = count().await;
    let forwards = if route == Route::PortForward { CALLS as u64 } else { 0 };
    let made = [after[0] - before[0], after[1] - before[1]];
    assert_eq!(made, [CALLS as u64, forwards], "pods created, port-forwards");
    if let Some(audit) = audit {
        audit.check(2 + usize::from(with_files) + usize::from(route == Route::PortForward));
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

/// The part of the API server's audit log that is written after this was opened.
struct Audit {
    log: BufReader<fs::File>,
    namespace: String,
}

impl Audit {
    fn open(cluster: &Cluster) -> Option<Self> {
        let mut log = BufReader::new(audit_log()?);
        log.seek(SeekFrom::End(0)).unwrap();
        Some(Audit { log, namespace: cluster.namespace.clone() })
    }

    /// Checks that the calls made this many kinds of requests, each kind exactly once a call. Requests of the watch are
    /// not a call's.
    fn check(self, kinds: usize) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for line in self.log.lines() {
            let entry: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let object = &entry["objectRef"];
            let is_product = entry["userAgent"].as_str().is_some_and(|agent| agent.starts_with("hops-k8s/"));
            let is_here = object["namespace"].as_str().is_none_or(|namespace| namespace == self.namespace);
            if is_product && is_here && entry["stage"] == "ResponseComplete" {
                let words = [&entry["verb"], &object["resource"], &object["subresource"]];
                let what: Vec<&str> = words.into_iter().filter_map(Value::as_str).collect();
                *counts.entry(what.join(" ")).or_default() += 1;
            }
        }
        println!("audit log: {counts:?}");
        counts.retain(|what, _| what != "list pods" && what != "watch pods");
        assert!(counts.len() == kinds && counts.values().all(|count| *count == CALLS), "{counts:?}");
    }
}
