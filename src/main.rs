//! The `bedside` command.

fn main() {}
