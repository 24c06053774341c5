//! What Tidemill's tests and benchmarks stand on; never shipped.
//!
//! * [`lab`]: a saga's surroundings, [`participants`]: whom it asks over NATS, [`http`]: over HTTP; [`fulfilment`]: one saga
//!   and what must have come of it.
//! * [`nats_server`]: real `nats-server` processes on free ports, which can be stopped, killed, frozen and set back.
//! * [`process`]: any other program as a child: a worker, the CLI, a participant.
//! * [`binaries`]: where the programs of this workspace are.
//! * [`simulation`]: seeded worlds for the saga and the projection machine.
//! * [`wait`]: waiting on a condition, with a cap and the last thing that was seen.
//!
//! Children die with the test, also when it panics or is killed itself: each has a watchdog (see [`process`]).
//! No port is fixed and nothing waits for an amount of time.

pub mod binaries;
pub mod fulfilment;
pub mod http;
pub mod lab;
pub mod nats_server;
pub mod participants;
#[cfg(feature = "planted-bugs")]
pub mod planted;
pub mod ports;
pub mod process;
pub mod simulation;
pub mod wait;

pub use lab::Lab;
pub use nats_server::{NatsServer, User, round_trip};
pub use process::Process;
pub use wait::eventually;
