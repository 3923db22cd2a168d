//! The pure part of the engine. No runtime, socket, thread, clock, lock or randomness of its own.

pub mod api;
