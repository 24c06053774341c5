//! The one way to NATS, for workers, the CLI and the operator. No other crate names a JetStream subject.
//!
//! * [`connection`]: [`Nats`], one connection to a cluster, made from the `connection` of a contract.
//! * [`api`]: JetStream's API, as far as it is needed: facts of streams, single messages.
//! * [`reader`]: [`Reader`], a stream's messages in order, none skipped and none repeated.
//! * [`subscription`]: core messages, over reconnects and more.
//! * [`publish`]: [`Publisher`], thousands of acknowledged publishes in flight.
//! * [`kv`]: [`KvBucket`], buckets that any KV client can read.
//! * [`provision`]: what is made before a worker starts: streams and buckets, never recreated.
//! * [`permissions`]: what workers, participants and others must be allowed to do.

pub mod api;
pub mod connection;
mod credentials;
pub mod kv;
pub mod message;
pub mod permissions;
pub mod provision;
pub mod publish;
mod pull;
pub mod reader;
pub mod subscription;
mod undeliverable;

pub use api::{ApiError, STREAM_ADVISORIES, StreamState};
pub use connection::{ConnectError, ConnectionStatus, Nats};
pub use credentials::Credentials;
pub use kv::{Guard, KvBucket, KvEntry, KvError, KvReader, KvWrite};
pub use message::{StoredMessage, header_map};
pub use publish::{Acked, PendingAck, Publish, PublishError, Publisher};
pub use reader::{ReadError, ReadFrom, Reader, Waits};
pub use subscription::Subscription;

pub use async_nats::HeaderMap;
