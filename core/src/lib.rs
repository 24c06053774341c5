//! core

pub mod json;
