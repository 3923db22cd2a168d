//! The edge as clients find it.
