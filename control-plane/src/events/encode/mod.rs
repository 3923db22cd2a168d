//! Events in the words of each contract: one internal event, one encoder per sink. All of them are
//! pure; what each event becomes is kept as a golden file.

pub(crate) mod kafka;
pub(crate) mod rabbit;
pub(crate) mod webhook;
