//! The model of Tidemill: what events, definitions, projections and sagas mean.
//!
//! Nothing here talks to the world: no network, files, clock or randomness. Times and random bits come in as
//! arguments, so everything can be tested by property and by seeded simulation, and every replay gives the same result.

pub mod contract;
pub mod control;
pub mod decimal;
pub mod definition;
pub mod envelope;
pub mod expression;
pub mod figures;
pub mod json;
pub mod names;
pub mod parked;
pub mod planted;
pub mod projection;
pub mod retry;
pub mod saga;
pub mod status;
pub mod timestamp;
