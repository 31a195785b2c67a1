//! The queue of a hops installation: a stream of NATS JetStream.

use async_nats::connection::State;
use async_nats::jetstream::consumer::pull::{Batch, Config};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::context::{GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::message::{Acker, PublishMessage};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, AckKind, Context, Error as Refusal, ErrorCode};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder, Retryable};
use futures::StreamExt;
use percent_encoding::percent_decode_str;
use std::error::Error;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the first connection is tried.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a silent connection is tested. It counts as broken after twice this time.
const PING: Duration = Duration::from_secs(10);
/// How often an acknowledgement is sent until it is confirmed.
const ACKS: usize = 3;
/// The pause between two looks at a connection that is down.
const LOOK: Duration = Duration::from_millis(200);

/// Why there is no queue to serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The address is malformed.
    #[error("the queue's address cannot be used: {0}; its form is nats://ACCOUNT:PASSWORD@HOST:4222")]
    Address(String),
    /// Nobody answers there.
    #[error("the queue at {host} does not answer: {why}")]
    Silent {
        /// Host and port.
        host: String,
        /// Why the last try failed.
        why: String,
    },
    /// The account or its password is wrong.
    #[error("the queue at {host} does not accept the account and its password")]
    Refused {
        /// Host and port.
        host: String,
    },
    /// The account has no stream.
    #[error("the queue at {host} has no stream {stream:?}")]
    NoStream {
        /// Host and port.
        host: String,
        /// The stream's name.
        stream: String,
    },
    /// The server does not do what a worker needs. Mostly the account has no JetStream.
    #[error("the queue at {host} does not give out requests: {why}")]
    Unusable {
        /// Host and port.
        host: String,
        /// The server's words.
        why: String,
    },
}

/// A connection to the queue of an account.
pub(super) struct Queue {
    client: Client,
    context: Context,
    stream: Stream<()>,
    name: String,
    host: String,
    account: String,
    ack_wait: Duration,
    /// How many connections were made.
    connections: watch::Receiver<u64>,
}

/// What became of a result.
pub(super) enum Delivery {
    /// A result stands in the stream: this one, or an earlier one.
    Stands,
    /// It has more bytes than the queue takes.
    TooLarge {
        /// The most bytes that the queue takes.
        limit: usize,
    },
}

impl Queue {
    /// Connects, and tries again for a while if nobody answers.
    pub(super) async fn connect(url: &str, account: &str, ack_wait: Duration) -> Result<Self, QueueError> {
        let address: ServerAddr =
            url.parse().map_err(|error: std::io::Error| QueueError::Address(error.to_string()))?;
        let host = format!("{}:{}", address.host(), address.port());
        let (connected, connections) = watch::channel(0);
        let mut options = ConnectOptions::new().name("hops-k8s").ping_interval(PING).event_callback(move |event| {
            match event {
                Event::Connected => {
                    tracing::info!("queue: connected");
                    connected.send_modify(|count| *count += 1);
                }
                // One for each try to connect again. That the connection is lost was logged once.
                Event::ClientError(error) => tracing::debug!("queue: {error}"),
                event => tracing::warn!("queue: {event}"),
            }
            std::future::ready(())
        });
        if let Some(user) = address.username() {
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            options = options.user_and_password(decoded(user), decoded(address.password().unwrap_or_default()));
        }
        // Without user and password: the client logs addresses.
        let mut plain = address.into_inner();
        let _ = plain.set_username("").and_then(|()| plain.set_password(None));
        let address = ServerAddr::from_url(plain).map_err(|error| QueueError::Address(error.to_string()))?;

        let start = Instant::now();
        let is_refused = |error: &async_nats::ConnectError| {
            matches!(error.kind(), ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication)
        };
        let connect = || options.clone().connect(address.clone());
        let may_pass = |error: &_| !is_refused(error) && start.elapsed() < PATIENCE;
        let client = connect.retry(backoff()).when(may_pass).await.map_err(|error| match is_refused(&error) {
            true => QueueError::Refused { host: host.clone() },
            false => QueueError::Silent { host: host.clone(), why: error.to_string() },
        })?;

        let context = jetstream::new(client.clone());
        let name = account.replace('*', "all").replace('.', "dot").replace('>', "children");
        let unusable = |why: String| QueueError::Unusable { host: host.clone(), why };
        context.get_stream(&name).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(refusal) if refusal.code() == 404 => {
                QueueError::NoStream { host: host.clone(), stream: name.clone() }
            }
            _ => unusable(error.to_string()),
        })?;
        let stream = context.get_stream_no_info(&name).await.map_err(|error| unusable(error.to_string()))?;
        Ok(Queue { client, context, stream, name, host, account: account.into(), ack_wait, connections })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits for a connection.
    pub(super) async fn connected(&self) {
        while !self.is_connected() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Changes with each new connection. Pulls that were made before it bring nothing more.
    pub(super) fn connections(&self) -> watch::Receiver<u64> {
        let mut connections = self.connections.clone();
        connections.mark_unchanged();
        connections
    }

    /// Creates the consumer of an app's requests, which all workers of the account share, or brings it up to date.
    pub(super) async fn consumer(&self, app: &str) -> Result<PullConsumer, QueueError> {
        let name = format!("{}-request-{app}", self.name);
        let config = Config {
            durable_name: Some(name.clone()),
            name: Some(name),
            filter_subject: format!("{}.request.*.*.{app}.*", self.account),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            // Each worker pulls no more than it has slots for. A limit here would hold for all workers together.
            max_ack_pending: -1,
            ..Config::default()
        };
        let created = self.stream.create_consumer(config).await;
        created.map_err(|error| QueueError::Unusable { host: self.host.clone(), why: error.to_string() })
    }

    /// Asks for this many requests. They come as soon as there are any, for this long.
    pub(super) async fn pull(consumer: &PullConsumer, count: usize, expires: Duration) -> Result<Batch, String> {
        let batch = consumer.batch().max_messages(count).expires(expires).messages();
        batch.await.map_err(|error| error.to_string())
    }

    /// Whether the stream has a message with this subject. Asks until there is an answer.
    pub(super) async fn holds(&self, subject: &str) -> bool {
        let mut pauses = pauses();
        loop {
            self.connected().await;
            let error = match self.stream.info_with_subjects(subject).await {
                Ok(mut subjects) => match subjects.next().await {
                    None => return false,
                    Some(Ok(_)) => return true,
                    Some(Err(error)) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            tracing::debug!(subject, error, "the queue does not say what it contains; asking again");
            pause(&mut pauses).await;
        }
    }

    /// Puts a result into the stream. Tries until one stands there.
    pub(super) async fn deliver(&self, subject: &str, result: &str) -> Delivery {
        let mut pauses = pauses();
        loop {
            self.connected().await;
            let message = PublishMessage::build().payload(result.to_owned().into()).message_id(subject);
            let published = match self.context.send_publish(subject.to_owned(), message).await {
                Ok(confirmation) => confirmation.await,
                Err(error) => Err(error),
            };
            let Err(error) = published else { return Delivery::Stands };
            if error.kind() == PublishErrorKind::MaxPayloadExceeded {
                return Delivery::TooLarge { limit: self.client.max_payload() };
            }
            let refusal = error.source().and_then(|source| source.downcast_ref::<Refusal>());
            match refusal.map(Refusal::error_code) {
                // The code alone says only that the message was not stored.
                Some(ErrorCode::STREAM_STORE_FAILED)
                    if error.to_string().contains("maximum messages per subject exceeded") =>
                {
                    return Delivery::Stands;
                }
                Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) => {
                    if let Ok(stream) = self.context.get_stream(&self.name).await {
                        let limit = stream.cached_info().config.max_message_size;
                        return Delivery::TooLarge { limit: limit.try_into().unwrap_or_default() };
                    }
                }
                _ => {}
            }
            tracing::warn!(%error, "the result is not in the queue yet; trying again");
            pause(&mut pauses).await;
        }
    }

    /// Tells the server that a request is done. It is no harm if the server does not confirm that: when the request is
    /// delivered again, its result is found.
    pub(super) async fn acknowledge(&self, acker: &Acker) {
        for _ in 0..ACKS {
            self.connected().await;
            match acker.double_ack().await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "the acknowledgement is not confirmed"),
            }
        }
        tracing::warn!("the acknowledgement is not confirmed; the request may be delivered again, which does no harm");
    }

    /// Keeps a request from being delivered again while its call runs. Never returns.
    pub(super) async fn heartbeats(&self, acker: &Acker) {
        loop {
            tokio::time::sleep(self.ack_wait / 3).await;
            self.connected().await;
            if let Err(error) = acker.ack_with(AckKind::Progress).await {
                tracing::debug!(%error, "heartbeat not sent");
            }
        }
    }

    /// Sends what waits to be sent.
    pub(super) async fn flush(&self) {
        if self.is_connected()
            && let Err(error) = self.client.flush().await
        {
            tracing::debug!(%error, "not everything was sent to the queue");
        }
    }
}

/// The pauses between tries that go on until one succeeds.
pub(super) fn pauses() -> ExponentialBackoff {
    backoff().build()
}

fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(15))
        .with_jitter()
        .without_max_times()
}

pub(super) async fn pause(pauses: &mut ExponentialBackoff) {
    tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(15))).await;
}
