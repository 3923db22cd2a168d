//! Measures calls over the bad networks that our targets are stated for, and writes the table in
//! docs/quality.md:
//!
//! ```text
//! sudo scripts/quality [profile…]
//! ```
//!
//! A doctor and a patient, both headless participants of this crate; the patient sits in a network
//! namespace behind `bedside-netimp`, the doctor beside the server. What the patient receives came by
//! the bad link downwards, what the doctor receives of the patient by the bad link upwards.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program to be run by hand")]

mod figures;
mod link;
mod people;
mod rows;
mod run;
mod table;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whatever stops a measurement.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Calls at a time: more would measure the machine.
const AT_ONCE: usize = 3;

fn main() -> Result<(), Failure> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let chosen: Vec<&rows::Row> = rows::ROWS
        .iter()
        .filter(|row| wanted.is_empty() || wanted.iter().any(|w| w == row.name))
        .collect();
    if chosen.is_empty() {
        return Err("no such profile".into());
    }
    let next = AtomicUsize::new(0);
    let measured = Mutex::new(table::Measured::load()?);
    std::thread::scope(|scope| {
        for worker in 0..AT_ONCE.min(chosen.len()) {
            let (chosen, next, measured) = (&chosen, &next, &measured);
            scope.spawn(move || {
                while let Some(row) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let number = u8::try_from(40 + worker).unwrap_or(40);
                    match run::measure(row, number) {
                        Ok(entry) => {
                            println!("{}: {entry}", row.name);
                            if let Ok(mut measured) = measured.lock() {
                                measured.take(row.name, entry);
                            }
                        }
                        Err(error) => eprintln!("{}: {error}", row.name),
                    }
                }
            });
        }
    });
    let measured = measured.into_inner().map_err(|_| "a measurement panicked")?;
    measured.write()
}
