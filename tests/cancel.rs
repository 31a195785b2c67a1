//! Calls that are cancelled at each of their steps: nothing is left of them.

use async_trait::async_trait;
use futures::{FutureExt, stream};
use hops_k8s::event::Events;
use hops_k8s::imports::pods::Retained;
use hops_k8s::plugin::CallCtx;
use hops_k8s::pods::memory::{Memory, Script};
use hops_k8s::pods::{Error, Identity, Pod, PodSpec, PodStatus, Pods};
use hops_k8s::policy::Policy;
use hops_k8s_tests::{Document, plugin};
use rstest::rstest;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::AsyncRead;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio_util::io::StreamReader;

/// Pods as over a network: before and after each action they yield, so that the call can be cancelled there. Their logs
/// never end.
struct Slow(Arc<Memory>);

#[async_trait]
impl Pods for Slow {
    async fn create(&self, spec: PodSpec, identity: Identity) -> Result<Box<dyn Pod>, Error> {
        yield_now().await;
        let pod = self.0.create(spec, identity).await?;
        yield_now().await;
        Ok(Box::new(SlowPod(pod)))
    }
}

struct SlowPod(Box<dyn Pod>);

#[async_trait]
impl Pod for SlowPod {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn changed(&mut self) -> Result<PodStatus, Error> {
        yield_now().await;
        self.0.changed().await
    }

    async fn read_file(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        yield_now().await;
        let content = self.0.read_file(path, limit).await;
        yield_now().await;
        content
    }

    async fn tail_logs(&mut self, lines: u32) -> Result<String, Error> {
        yield_now().await;
        self.0.tail_logs(lines).await
    }

    async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error> {
        yield_now().await;
        Ok(Box::pin(StreamReader::new(stream::pending::<io::Result<&[u8]>>())))
    }

    async fn delete(&mut self) -> Result<(), Error> {
        yield_now().await;
        let deleted = self.0.delete().await;
        yield_now().await;
        deleted
    }
}

/// Polls a future at most this many times, then drops it.
async fn cancelled_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = polls;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.poll_unpin(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A pod that goes through many states.
fn script() -> Script {
    let mut script = Script::default()
        .at(0, PodStatus::waiting("ContainerCreating", ""))
        .at(100, PodStatus::running())
        .at(200, PodStatus::exited(3, "Error", ""))
        .file("result.json", "[1]");
    script.log = "a line\n".into();
    script
}

#[rstest]
#[case::ends(r#"{"image": "a"}"#, "Error: container exited with code 3")]
#[case::runs_too_long(r#"{"image": "a", "timeout": "50ms"}"#, "Timeout: ")]
#[case::does_not_start(r#"{"image": "a", "start_timeout": "50ms"}"#, "StartTimeout: ")]
#[tokio::test(start_paused = true)]
async fn a_call_that_is_cancelled_at_any_step_leaves_nothing(
    #[case] inputs: &str,
    #[case] error: &str,
    #[values(false, true)] outlives: bool,
) {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut seen = vec![];
    for polls in 0.. {
        let pods = Arc::new(Memory::new(|_| script()));
        let (events, _heard) = Events::channel(true);
        let mut ctx = CallCtx::new(Arc::new(Slow(pods.clone())), Arc::new(Policy::default())).events(events);
        let retained = Retained::default();
        if outlives {
            let (labels, annotations) = (BTreeMap::new(), BTreeMap::new());
            let identity = Identity { name: "one".into(), labels, annotations, outlives_call: true };
            ctx = ctx.identity(identity).retain(retained.clone());
        }
        let called = cancelled_after(polls, plugin().call(ctx, "run", inputs)).await;

        // Aborted tasks end when the runtime runs them next.
        yield_now().await;
        assert_eq!(tasks(), before, "a task is left after {polls} polls");
        let left = usize::from(outlives && !pods.created().is_empty());
        assert_eq!(pods.live(), left, "pods left after {polls} polls");
        seen.push(pods.created().len());
        if let Some(called) = called {
            assert!(Document::parse(called.unwrap().text()).error().starts_with(error));
            retained.delete().await.unwrap();
            assert_eq!(pods.live(), 0, "whoever made the call deletes its pod");
            break;
        }
        drop(retained);
        assert_eq!(pods.live(), left, "only whoever made the call deletes its pod");
    }
    // It was cancelled several times before the pod existed, and several times after that.
    assert!(seen.iter().filter(|&&pods| pods == 0).count() >= 2, "{seen:?}");
    assert!(seen.iter().filter(|&&pods| pods == 1).count() >= 4, "{seen:?}");
}
