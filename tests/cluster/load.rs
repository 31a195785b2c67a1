//! What needs a cluster for itself: counts of requests, a node that is full, servers that go away.

#[allow(dead_code, reason = "the other cluster tests use the rest")]
mod harness;
mod node;
mod outage;
mod room;
#[allow(dead_code, reason = "the other cluster tests use the rest")]
mod service;

use harness::{Cluster, Route, until};
use hops_k8s_tests::nats::{Installation, Server};
use hops_k8s_tests::{Document, call};
use kube::Client;
use rstest::rstest;
use serde_json::{Value, json};
use service::{Seen, awaited, kill, kube, no_pods, process, request, start};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const CALLS: usize = 50;

/// What one test counts must not hold another's requests.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What stops and starts the parts of the cluster, which is on this machine then: `ctl("stop", "kube-apiserver")`. None, and
/// a word about it, where `HOPS_TEST_CLUSTER_CTL` names no such program.
fn ctl() -> Option<impl Fn(&str, &str)> {
    let Some(program) = env::var_os("HOPS_TEST_CLUSTER_CTL") else {
        println!("skipped: HOPS_TEST_CLUSTER_CTL names no program that stops and starts the cluster's parts");
        return None;
    };
    Some(move |verb: &str, part: &str| {
        assert!(Command::new(&program).args([verb, part]).status().unwrap().success(), "{verb} {part}");
    })
}

/// The sum of a metric of the API server's over all series with these labels.
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

/// The number of watches when those of the test before have ended.
async fn settled_watches(client: &Client) -> u64 {
    let mut before = watches(client).await;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = watches(client).await;
        if now == before {
            return now;
        }
        before = now;
    }
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
async fn fifty_calls_at_once_share_one_watch_and_make_few_requests(#[case] route: Route, #[case] with_files: bool) {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(route).await;
    let client = cluster.client.clone();
    let audit = Audit::open();
    let watches_before = settled_watches(&client).await;
    let count = || async {
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
    until("the calls have opened a watch on pods", || async {
        watches(&client).await.checked_sub(watches_before).filter(|&opened| opened > 0).ok_or("not yet")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(watches(&client).await - watches_before, 1, "watches on pods that the calls have opened");
    for (number, call) in calls.into_iter().enumerate() {
        let document = Document::parse(&call.await.unwrap());
        assert_eq!((document.error(), document.json()), ("", &json!({"number": number})));
    }
    println!("{CALLS} calls by {route:?} took {:?}", start.elapsed());

    let after = count().await;
    let [pods, forwards] = [0, 1].map(|index| after[index] - before[index]);
    let needed = if route == Route::PortForward { CALLS as u64 } else { 0 };
    // A result server that is not up yet is asked again.
    let again = forwards.checked_sub(needed).filter(|again| *again <= needed / 10);
    assert!(pods == CALLS as u64 && again.is_some(), "{pods} pods, {forwards} port-forwards");
    if let Some(audit) = audit {
        audit.check(with_files, route, again.unwrap() as usize);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn two_hundred_requests_to_two_workers_have_two_hundred_pods_though_one_is_killed() {
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
    // What the killed worker had published and not deleted goes when a worker starts.
    kill(worker).await;
    let last = start(&server, Arc::new(kube().await)).await;
    no_pods(&cluster).await;
    assert_eq!(seen.count(), 200, "pods created");
    kill(last).await;
    cluster.end().await;
}

/// The worker is a process of its own, so that what it has open is its own, too.
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
    until("what the calls had opened is closed", || async {
        if open() <= before { Ok(()) } else { Err(format!("{} files instead of {before}", open())) }
    })
    .await;
    drop(worker);
    cluster.end().await;
}

/// The API server's audit log in `HOPS_TEST_AUDIT_LOG`, read from where it ended before the calls.
struct Audit(BufReader<fs::File>);

impl Audit {
    fn open() -> Option<Self> {
        let path = env::var_os("HOPS_TEST_AUDIT_LOG")?;
        let mut log = BufReader::new(fs::File::open(path).expect("the audit log is there"));
        log.seek(SeekFrom::End(0)).unwrap();
        Some(Audit(log))
    }

    /// Every request that this program has made since, but for those of its watch, counts to the calls.
    fn check(self, with_files: bool, route: Route, again: usize) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for line in self.0.lines() {
            let entry: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let is_ours = entry["userAgent"].as_str().is_some_and(|agent| agent.starts_with("hops-k8s/"));
            if is_ours && entry["stage"] == "ResponseComplete"
                || entry["stage"] == "ResponseStarted" && is_ours && entry["verb"] == "watch"
            {
                let object = &entry["objectRef"];
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let what =
                    format!("{} {} {}", text(&entry["verb"]), text(&object["resource"]), text(&object["subresource"]));
                *counts.entry(what.trim_end().into()).or_default() += 1;
            }
        }
        println!("audit log: {counts:?}");
        let of_watch: usize = ["list pods", "watch pods"].iter().filter_map(|&what| counts.get(what)).sum();
        let of_calls = counts.values().sum::<usize>() - of_watch;
        let expected = 2 + usize::from(with_files) + usize::from(route == Route::PortForward);
        assert_eq!(of_calls, expected * CALLS + again, "{counts:?}");
        assert!(expected <= 4);
    }
}
