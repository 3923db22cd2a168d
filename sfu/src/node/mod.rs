//! Threads and sockets around the pure core.
