//! The estimator in a closed loop: a sender that obeys it, a modelled link, a receiver that tells.

mod invariants;
mod link;
mod scenarios;
mod sender;
