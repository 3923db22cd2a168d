//! What TURN counts, for Prometheus.

use std::sync::Arc;

use bedside_turn::Counters;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, CounterVec, Gauge, Opts};

use super::TurnServer;

const ALLOCATIONS: &str = "bedside_turn_allocations";
const ALLOCATIONS_HELP: &str = "Open allocations.";

/// The metrics of TURN.
pub(crate) struct Relays {
    server: Arc<TurnServer>,
    /// The registry tells collectors apart by what they say they collect.
    desc: Desc,
}

impl Relays {
    /// Shows what this server counts.
    pub(crate) fn new(server: Arc<TurnServer>) -> prometheus::Result<Self> {
        let labels = Default::default();
        let desc = Desc::new(ALLOCATIONS.into(), ALLOCATIONS_HELP.into(), Vec::new(), labels)?;
        Ok(Self { server, desc })
    }
}

impl Collector for Relays {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        families(&self.server.counters()).unwrap_or_else(|error| {
            tracing::error!(%error, "the counters of TURN cannot be shown");
            Vec::new()
        })
    }
}

/// Name, help, label, and what is counted for each word.
type Labelled<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, u64)]);

#[expect(clippy::cast_precision_loss, reason = "a metric is a float; 2^53 packets are centuries")]
fn families(counters: &Counters) -> prometheus::Result<Vec<MetricFamily>> {
    let mut families = Vec::new();
    let streams = ("bedside_turn_streams", "Open TCP and TLS connections to TURN.");
    for ((name, help), value) in
        [((ALLOCATIONS, ALLOCATIONS_HELP), counters.allocations), (streams, counters.streams)]
    {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value as f64);
        families.extend(gauge.collect());
    }
    let allocated = Counter::new("bedside_turn_allocated_total", "Allocations made.")?;
    allocated.inc_by(counters.allocated as f64);
    families.extend(allocated.collect());
    let labelled: [Labelled<'_>; 4] = [
        (
            "bedside_turn_datagrams_total",
            "Relayed datagrams.",
            "to",
            &[("media", counters.to_media), ("clients", counters.to_clients)],
        ),
        (
            "bedside_turn_bytes_total",
            "Bytes of relayed datagrams.",
            "to",
            &[("media", counters.to_media_bytes), ("clients", counters.to_clients_bytes)],
        ),
        (
            "bedside_turn_errors_total",
            "Error answers, by reason.",
            "reason",
            &[
                ("unauthorized", counters.unauthorized),
                ("forbidden", counters.forbidden),
                ("quota", counters.quota),
                ("other", counters.errors),
            ],
        ),
        (
            "bedside_turn_dropped_total",
            "What was thrown away or refused without a word, by reason.",
            "reason",
            &[
                ("withheld", counters.withheld),
                ("malformed", counters.malformed),
                ("no_permission", counters.no_permission),
                ("no_way_back", counters.no_way_back),
                ("slow_client", counters.dropped),
                ("send_failure", counters.send_failures),
                ("stream_refused", counters.streams_refused),
            ],
        ),
    ];
    for (name, help, label, values) in labelled {
        let family = CounterVec::new(Opts::new(name, help), &[label])?;
        for (word, value) in values {
            family.with_label_values(&[word]).inc_by(*value as f64);
        }
        families.extend(family.collect());
    }
    Ok(families)
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn relays_are_shown_by_direction_and_reason() {
        let counters = Counters {
            allocations: 2,
            to_media: 3,
            forbidden: 4,
            dropped: 5,
            ..Counters::default()
        };
        let text = TextEncoder::new().encode_to_string(&families(&counters).unwrap()).unwrap();
        for line in [
            "bedside_turn_allocations 2",
            "bedside_turn_datagrams_total{to=\"media\"} 3",
            "bedside_turn_errors_total{reason=\"forbidden\"} 4",
            "bedside_turn_dropped_total{reason=\"slow_client\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
