//! Seeded simulation of the machines: every run is decided by its seed alone, so a failure is a number that
//! anybody can run again.

pub mod matrix;
mod participant;
pub mod projection;
mod random;
pub mod saga;
pub mod shapes;

pub use random::Random;
