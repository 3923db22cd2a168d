//! WHIP and WHEP: a participant that comes with one HTTP request and says no more.
//!
//! An offer is posted ([`offer`]), the answer comes back with the address of a session: PATCH brings
//! candidates or restarts ICE ([`fragment`]), DELETE ends it. Behind the doors it is a participant like
//! any other: the same commands go to the engine, and a task (`resource`) takes what the engine tells
//! the session that a client of messages would have.

pub mod fragment;
pub mod offer;

pub(crate) mod door;
mod resource;
