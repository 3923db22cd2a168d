//! Measuring the release server beside the kernel floor, see the program `forwarding`.

pub mod bot;
pub mod floor;
pub mod generator;
pub mod load;
pub mod process;
pub mod report;
pub mod server;
