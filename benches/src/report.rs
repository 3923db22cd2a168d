//! What is printed and kept.

use std::time::Duration;

use serde::Serialize;

use crate::generator::{Measured, Shape};

/// One line of the result: a shape, carried by one kind of process.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The shape.
    pub shape: String,
    /// The process.
    pub process: String,
    /// CPU time per forwarded packet.
    pub us_per_packet: f64,
    /// Of that, in the kernel.
    pub system_us_per_packet: f64,
    /// Forwarded packets per second.
    pub packets_per_second: f64,
    /// Share of one core that the process used.
    pub core: f64,
    /// Part of the forwarded packets that did not arrive.
    pub loss: f64,
    /// Turns of its loop per second.
    pub turns_per_second: f64,
    /// Time from sending to arrival, of the checked packets, ms.
    pub delay_ms: Delays,
    /// Opened and found right.
    pub checked: u64,
    /// Opened and found wrong.
    pub wrong: u64,
    /// Part of the time that the generator had work.
    pub generator: f64,
}

/// Parts of the distribution.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Delays {
    /// Half are below.
    pub p50: f64,
    /// 99 of 100 are below.
    pub p99: f64,
}

impl Row {
    /// Several measurements of one cell together.
    pub fn new(shape: &Shape, process: &str, measured: &[Measured]) -> Self {
        let sum = |value: fn(&Measured) -> f64| measured.iter().map(value).sum::<f64>();
        let received = sum(|m| m.seen.received as f64).max(1.0);
        let wall = sum(|m| m.wall.as_secs_f64()).max(f64::MIN_POSITIVE);
        let cpu = sum(|m| m.cost.cpu_us());
        let mut delays: Vec<Duration> =
            measured.iter().flat_map(|m| m.seen.delays.iter().copied()).collect();
        delays.sort_unstable();
        let part = |part: f64| {
            let index = (delays.len() as f64 * part) as usize;
            delays.get(index).map_or(0.0, |delay| delay.as_secs_f64() * 1e3)
        };
        Self {
            shape: shape.name.to_owned(),
            process: process.to_owned(),
            us_per_packet: cpu / received,
            system_us_per_packet: sum(|m| m.cost.system_us as f64) / received,
            packets_per_second: received / wall,
            core: cpu / 1e6 / wall,
            loss: (1.0 - received / sum(|m| m.expected as f64).max(1.0)).max(0.0),
            turns_per_second: sum(|m| m.cost.turns as f64) / wall,
            delay_ms: Delays { p50: part(0.5), p99: part(0.99) },
            checked: measured.iter().map(|m| m.seen.good).sum(),
            wrong: measured.iter().map(|m| m.seen.bad).sum(),
            generator: sum(|m| m.generator) / measured.len().max(1) as f64,
        }
    }

    /// One line of the table; `floor` is what the ratio refers to.
    pub fn line(&self, floor: f64) -> String {
        format!(
            "| {:<16} | {:<7} | {:>5.2} | {:>5.2} | {:>5.2} | {:>7.0} | {:>5.1} % | {:>6.3} % | {:>6.0} | {:>5.2} / {:>5.2} | {} / {} | {:>3.0} % |",
            self.shape,
            self.process,
            self.us_per_packet,
            self.system_us_per_packet,
            self.us_per_packet / floor,
            self.packets_per_second,
            self.core * 100.0,
            self.loss * 100.0,
            self.turns_per_second,
            self.delay_ms.p50,
            self.delay_ms.p99,
            self.checked,
            self.wrong,
            self.generator * 100.0,
        )
    }
}

/// Titles of [`Row::line`].
pub const HEADER: &str = "\
| shape            | process | µs/pk | of it | ratio | packets | share   | loss     | turns  | delay ms      | right / | gene- |
|                  |         |       |kernel |       |   per s | of core |          |  per s | p50 /   p99   | wrong   | rator |
|------------------|---------|-------|-------|-------|---------|---------|----------|--------|---------------|---------|-------|";
