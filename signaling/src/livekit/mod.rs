//! The door that speaks the LiveKit client protocol.

pub mod convert;
pub mod data;
pub mod door;
pub mod query;
pub mod validate;
pub mod webhook;

mod admin;
mod socket;

pub(crate) use admin::router as admin_router;
