//! Calls on the engine in `DOCKER_HOST` beside `docker run` of the same command, alternating.

use hops_k8s::pods::Pods;
use hops_k8s::pods::engine::{EngineOptions, EnginePods};
use hops_k8s_tests::{Document, call};
use serde_json::json;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RUNS: usize = 15;
const IMAGE: &str = "bash:5-alpine3.18";
const HELLO: [&str; 3] =
    ["bash", "-c", r#"mkdir -p /output; echo '{"greeting": "Hello world!"}' > /output/result.json"#];

#[tokio::main]
async fn main() {
    let pods = Arc::new(EnginePods::connect(EngineOptions::default()).await.unwrap_or_else(|error| panic!("{error}")));
    println!("{}", pods.description());
    let inputs = json!({"image": IMAGE, "command": HELLO});
    let (mut results, mut removals, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    // The first of each is not counted.
    for _ in 0..=RUNS {
        let start = Instant::now();
        let document = Document::parse(&call(pods.clone(), &inputs).await.unwrap());
        assert_eq!(document.json()["greeting"], "Hello world!", "{document:?}");
        results.push(start.elapsed());
        pods.drained().await;
        removals.push(start.elapsed());

        let start = Instant::now();
        let limits = ["--cpus=0.25", "--memory=128m", "--memory-swap=128m"];
        let status = Command::new("docker").args(["run", "--rm"]).args(limits).arg(IMAGE).args(HELLO).status();
        assert!(status.unwrap().success());
        bare.push(start.elapsed());
    }
    let [result, removal, bare] = [results, removals, bare].map(median);
    let ratio = |time: Duration| time.as_secs_f64() / bare.as_secs_f64();
    println!("docker run --rm         {bare:8.1?}");
    println!("call, until its result  {result:8.1?}  {:.2}", ratio(result));
    println!("call and removal        {removal:8.1?}  {:.2}", ratio(removal));
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.remove(0);
    times.sort();
    times[times.len() / 2]
}
