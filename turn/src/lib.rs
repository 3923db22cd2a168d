//! TURN (RFC 8656): so far its pure message codec.
//!
//! The server's state machine and its listeners come with TURN itself; until then clients get an
//! empty list of ICE servers.

pub mod message;
