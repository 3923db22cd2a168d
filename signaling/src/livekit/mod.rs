//! The door that speaks the LiveKit client protocol.

pub mod v1;
