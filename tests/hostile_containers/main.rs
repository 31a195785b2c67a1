//! Containers that do what no container should: each ends its own call in time, costs this process little memory, and
//! slows no other call. With `--nocapture`, each test prints its figures.

mod misdeeds;

use futures::future::join_all;
use hops_k8s::event::Events;
use hops_k8s::pods::Pods;
use hops_k8s_tests::cluster::{Cluster, Route};
use hops_k8s_tests::{Document, call, call_with, rss};
use misdeeds::*;
use rstest::rstest;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// The most that the memory of this process may grow for one call, in KiB.
const MOST_MEMORY: u64 = 32 * 1024;
/// The most that other calls may be slowed, as a factor.
const MOST_SLOWDOWN: f64 = 1.2;
/// A slowdown counts if it shows this many times in a row: the machine may be busy with something else.
const MEASUREMENTS: usize = 3;
/// The good calls that run side by side, and how often.
const AT_ONCE: usize = 4;
const ROUNDS: usize = 3;
/// How long after its time a call is broken off.
const GIVE_UP: Duration = Duration::from_secs(30);
/// The longest result document of a hostile container: a log's end is at most 1 MiB.
const MOST_BYTES: usize = 3 << 19;

/// Held by each test, so that none measures another.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What listens to the events of the hostile container's call, its log among them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listener {
    Nobody,
    /// Somebody who takes 20 events a second.
    Slow,
}

#[rstest]
#[case::answers_with_chunks(CHUNK_BOMB, Route::PodIp)]
#[case::answers_with_chunks_by_port_forward(CHUNK_BOMB, Route::PortForward)]
#[case::answers_with_more_than_announced(LONG_BODY, Route::PodIp)]
#[case::answers_slowly(SLOW_DRIP, Route::PodIp)]
#[case::answers_slowly_by_port_forward(SLOW_DRIP, Route::PortForward)]
#[case::answers_with_a_long_header(LONG_HEADER, Route::PodIp)]
#[case::answers_with_a_long_header_by_port_forward(LONG_HEADER, Route::PortForward)]
#[case::answers_with_many_headers(MANY_HEADERS, Route::PodIp)]
#[case::answers_continue(MANY_INTERIM_ANSWERS, Route::PodIp)]
#[case::answers_with_text(NO_HTTP, Route::PodIp)]
#[case::squats_before_the_result_server(SQUATS_BEFORE, Route::PodIp)]
#[case::squats_after_the_result_server(SQUATS_AFTER, Route::PodIp)]
#[case::floods_its_log(LOG_FLOOD, Route::PodIp)]
#[case::floods_its_log_with_one_line(LOG_LINE, Route::PodIp)]
#[case::has_a_long_termination_message(TERMINATION_MESSAGE, Route::PodIp)]
#[case::leaves_a_chain_of_links(LINK_CHAIN, Route::PodIp)]
#[case::leaves_a_folder_of_links(LINK_FARM, Route::PodIp)]
#[case::leaves_a_link_to_another_file(LINK_OUT, Route::PodIp)]
#[case::leaves_a_sparse_file(SPARSE_FILE, Route::PodIp)]
#[case::forks(FORK_BOMB, Route::PodIp)]
#[case::fills_the_disk(DISK_BOMB, Route::PodIp)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_hostile_container_harms_only_its_own_call(#[case] misdeed: Misdeed, #[case] route: Route) {
    check(misdeed, route, Listener::Nobody).await;
}

#[rstest]
#[case::in_lines(LOG_FLOOD)]
#[case::in_one_line(LOG_LINE)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_log_that_is_longer_than_its_listener_can_read_takes_no_memory(#[case] misdeed: Misdeed) {
    check(misdeed, Route::PodIp, Listener::Slow).await;
}

async fn check(misdeed: Misdeed, route: Route, listener: Listener) {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::start(route).await;
    // The first calls take memory that later ones use again.
    good_calls(&cluster, AT_ONCE + 1).await;
    let mut measured = measure(&cluster, misdeed, listener).await;
    for _ in 1..MEASUREMENTS {
        if measured.harm(misdeed).is_some_and(|harm| harm.is_slowdown) {
            measured = measure(&cluster, misdeed, listener).await;
        }
    }
    cluster.end().await;
    if let Some(harm) = measured.harm(misdeed) {
        panic!("a container that {}, by {route:?}: {}: {measured}", misdeed.name, harm.what);
    }
}

/// What a hostile container and the calls beside it came to.
struct Measured {
    /// The document of the hostile container's call, and how long the call took. `None` if it was broken off, because it
    /// took too long or too much memory.
    ended: Option<(Document, Duration)>,
    /// How much the memory of this process grew, in KiB.
    memory: u64,
    /// How long good calls took before and after the hostile container, with one more of them in its place.
    alone: Vec<Duration>,
    /// How long good calls took beside it.
    beside: Vec<Duration>,
}

struct Harm {
    what: &'static str,
    is_slowdown: bool,
}

impl Measured {
    /// The worst that the container has done.
    fn harm(&self, misdeed: Misdeed) -> Option<Harm> {
        let harm = |what| Some(Harm { what, is_slowdown: false });
        if self.memory > MOST_MEMORY {
            return harm("it takes too much memory");
        }
        let Some((document, _)) = self.ended.as_ref().filter(|(_, took)| *took <= misdeed.within) else {
            return harm("it does not end in time");
        };
        if !misdeed.errors.iter().any(|error| document.error().starts_with(error)) {
            harm("its error is not the right one")
        } else if !document.body().is_empty() || !document.json().is_null() {
            harm("what it sent is taken for the result")
        } else if document.0.to_string().len() > MOST_BYTES {
            harm("its document is too long")
        } else if self.slowdown() > MOST_SLOWDOWN {
            Some(Harm { what: "it slows other calls", is_slowdown: true })
        } else {
            None
        }
    }

    fn slowdown(&self) -> f64 {
        median(&self.beside).div_duration_f64(median(&self.alone))
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ended {
            Some((_, took)) => write!(f, "ended in {:.1} s", took.as_secs_f64())?,
            None => write!(f, "broken off")?,
        }
        write!(
            f,
            ", memory + {:.1} MiB, other calls {:.2} s alone and {:.2} s beside it (× {:.2}, {} calls)",
            self.memory as f64 / 1024.0,
            median(&self.alone).as_secs_f64(),
            median(&self.beside).as_secs_f64(),
            self.slowdown(),
            self.beside.len(),
        )?;
        match &self.ended {
            Some((document, _)) => write!(f, ": {:.200}", document.0.to_string()),
            None => Ok(()),
        }
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

async fn measure(cluster: &Cluster, misdeed: Misdeed, listener: Listener) -> Measured {
    let mut alone = vec![];
    rss::reset_peak();
    for _ in 0..ROUNDS {
        alone.extend(good_calls(cluster, AT_ONCE + 1).await);
    }
    // The memory that good calls take is not the hostile container's.
    let before = rss::peak();
    rss::reset_peak();
    let growth = || rss::peak().saturating_sub(before);

    let hostile = tokio::spawn(hostile_call(cluster, misdeed, listener));
    let mut beside = vec![];
    let good = async {
        while !hostile.is_finished() {
            beside.extend(good_calls(cluster, AT_ONCE).await);
        }
    };
    let too_much = async {
        while growth() <= MOST_MEMORY {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let has_ended = tokio::select! {
        () = good => true,
        () = too_much => false,
        () = sleep(misdeed.within + GIVE_UP) => false,
    };
    let memory = growth();
    if !has_ended {
        hostile.abort();
    }
    let ended = match hostile.await {
        Ok(ended) => Some(ended),
        Err(error) if error.is_cancelled() => None,
        Err(error) => panic!("{error}"),
    };
    cluster.pods.drained().await;
    for _ in 0..ROUNDS {
        alone.extend(good_calls(cluster, AT_ONCE + 1).await);
    }
    let measured = Measured { ended, memory, alone, beside };
    println!("a container that {}: {measured}", misdeed.name);
    measured
}

/// Runs good calls side by side, and returns how long each took.
async fn good_calls(cluster: &Cluster, count: usize) -> Vec<Duration> {
    let calls = (0..count).map(|number| async move {
        let start = Instant::now();
        let script = format!("echo [{number}] > /output/result.json");
        let inputs = json!({"command": ["bash", "-c", script], "cpu": "100m", "start_timeout": "5m"});
        let document = cluster.call(inputs).await;
        assert_eq!((document.error(), document.json()), ("", &json!([number])));
        start.elapsed()
    });
    join_all(calls).await
}

/// Runs the hostile container. Returns its document, and how long its call took.
fn hostile_call(
    cluster: &Cluster,
    misdeed: Misdeed,
    listener: Listener,
) -> impl Future<Output = (Document, Duration)> + use<> {
    let pods = cluster.pods.clone();
    let inputs: Value = cluster.inputs(json!({
        "command": ["bash", "-c", misdeed.script], "cpu": "250m", "memory": "128Mi",
        "timeout": misdeed.timeout, "start_timeout": "60s",
    }));
    async move {
        let start = Instant::now();
        let text = match listener {
            Listener::Nobody => call(pods, &inputs).await,
            Listener::Slow => {
                let (events, mut heard) = Events::channel(true);
                let listening = async {
                    while heard.recv().await.is_some() {
                        sleep(Duration::from_millis(50)).await;
                    }
                    pending::<Infallible>().await
                };
                tokio::select! {
                    text = call_with(pods, events, &inputs) => text,
                    never = listening => match never {},
                }
            }
        };
        (Document::parse(&text.unwrap()), start.elapsed())
    }
}
