//! The door that speaks the LiveKit client protocol.

pub mod convert;
pub mod data;
pub mod v1;
pub mod validate;

mod socket;
