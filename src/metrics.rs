//! `/metrics`: what engine, signaling and control plane count, HTTP answers and join times, for
//! Prometheus.
//!
//! The parts count in plain numbers of their own; they are read when somebody asks. No label names a
//! person, a room or an address.

use std::sync::Arc;

use bedside_control_plane::ControlPlane;
use bedside_control_plane::counters::ControlCounters;
use bedside_sfu::core::counters::Counters;
use bedside_signaling::counters::SignalingCounters;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily};
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use crate::edge::{EdgeCounters, Expiry};
use crate::relay::{Relays, TurnServer};

/// Reads the engine's counters.
pub(crate) type ReadCounters = Arc<dyn Fn() -> Counters + Send + Sync>;

/// Everything that `/metrics` shows.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    http: IntCounterVec,
    http_connections: IntGauge,
}

impl Metrics {
    /// Registers all metrics.
    pub(crate) fn new(
        read: ReadCounters,
        signaling: Arc<SignalingCounters>,
    ) -> prometheus::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(Engine { read }))?;
        registry.register(Box::new(Doors::new(signaling)?))?;
        let http = IntCounterVec::new(
            Opts::new("bedside_http_requests_total", "HTTP requests by kind of answer."),
            &["status"],
        )?;
        registry.register(Box::new(http.clone()))?;
        let http_connections = IntGauge::new(
            "bedside_http_connections",
            "Open HTTP connections, WebSockets included.",
        )?;
        registry.register(Box::new(http_connections.clone()))?;
        let info = IntGauge::with_opts(
            Opts::new("bedside_build_info", "Always 1.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        info.set(1);
        registry.register(Box::new(info))?;
        Ok(Self { registry, http, http_connections })
    }

    /// Counters of the edge.
    pub(crate) fn edge(&self) -> prometheus::Result<EdgeCounters> {
        EdgeCounters::new(&self.registry)
    }

    /// Shows when the certificate ends.
    pub(crate) fn certificate(&self, expiry: Expiry) -> prometheus::Result<()> {
        self.registry.register(Box::new(expiry))
    }

    /// Shows what TURN counts, too.
    pub(crate) fn turn(&self, server: Arc<TurnServer>) -> prometheus::Result<()> {
        self.registry.register(Box::new(Relays::new(server)?))
    }

    /// Shows what the control plane counts, too.
    pub(crate) fn watch(&self, control: ControlPlane) -> prometheus::Result<()> {
        self.registry.register(Box::new(Consultations::new(control)?))
    }

    /// An answer left.
    pub(crate) fn answered(&self, status: u16) {
        let class = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.http.with_label_values(&[class]).inc();
    }

    /// Counts a connection while the value lives.
    pub(crate) fn connection(&self) -> Open {
        self.http_connections.inc();
        Open(self.http_connections.clone())
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The engine's counters as metric families, made anew at each reading.
struct Engine {
    read: ReadCounters,
}

impl Collector for Engine {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        families((self.read)().values()).unwrap_or_else(|error| {
            tracing::error!(%error, "counters cannot be shown");
            Vec::new()
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float; 2^53 packets are centuries")]
fn families(values: [u64; Counters::COUNT]) -> prometheus::Result<Vec<MetricFamily>> {
    let drops = CounterVec::new(
        Opts::new("bedside_dropped_packets_total", "Datagrams thrown away, by reason."),
        &["reason"],
    )?;
    let mut families = Vec::with_capacity(Counters::COUNT);
    for ((name, help), value) in Counters::NAMES.iter().zip(values) {
        let help = help.trim();
        if let Some(reason) = name.strip_prefix("dropped_") {
            drops.with_label_values(&[reason]).inc_by(value as f64);
        } else if let Some(help) = help.strip_prefix("Gauge: ") {
            let gauge = Gauge::new(format!("bedside_{name}"), help)?;
            gauge.set(value as f64);
            families.extend(gauge.collect());
        } else {
            let counter = Counter::new(format!("bedside_{name}_total"), help)?;
            counter.inc_by(value as f64);
            families.extend(counter.collect());
        }
    }
    families.extend(drops.collect());
    Ok(families)
}

/// Signaling's counters, and how long joins take.
struct Doors {
    signaling: Arc<SignalingCounters>,
    /// The registry tells collectors apart by what they say they collect.
    desc: Desc,
}

impl Doors {
    fn new(signaling: Arc<SignalingCounters>) -> prometheus::Result<Self> {
        let labels = Default::default();
        let desc = Desc::new(JOIN_SECONDS.into(), JOIN_SECONDS_HELP.into(), Vec::new(), labels)?;
        Ok(Self { signaling, desc })
    }
}

/// What the control plane counts.
struct Consultations {
    control: ControlPlane,
    /// As in [`Doors`].
    desc: Desc,
}

const CONSULTATIONS: &str = "bedside_consultations";
const CONSULTATIONS_HELP: &str = "Consultations in the database, by status.";

impl Consultations {
    fn new(control: ControlPlane) -> prometheus::Result<Self> {
        let labels = vec!["status".to_owned()];
        let desc =
            Desc::new(CONSULTATIONS.into(), CONSULTATIONS_HELP.into(), labels, Default::default())?;
        Ok(Self { control, desc })
    }
}

impl Collector for Consultations {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        control_families(self.control.counters()).unwrap_or_else(|error| {
            tracing::error!(%error, "the control plane's counters cannot be shown");
            Vec::new()
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float; 2^53 visits are ages")]
fn control_families(counters: &ControlCounters) -> prometheus::Result<Vec<MetricFamily>> {
    let by_status = GaugeVec::new(Opts::new(CONSULTATIONS, CONSULTATIONS_HELP), &["status"])?;
    for (status, value) in counters.sessions_by_status() {
        by_status.with_label_values(&[status.as_str()]).set(value as f64);
    }
    let mut families = by_status.collect();
    for (name, help, value) in counters.values() {
        // Apart from what rooms count under the same words.
        let name = format!("bedside_control_{name}");
        if help.contains("(gauge)") {
            let gauge = Gauge::new(name, help.replace(" (gauge)", "").trim())?;
            gauge.set(value as f64);
            families.extend(gauge.collect());
        } else {
            let counter = Counter::new(format!("{name}_total"), help.trim())?;
            counter.inc_by(value as f64);
            families.extend(counter.collect());
        }
    }
    families.extend(outbox_families(counters)?);
    Ok(families)
}

/// Events by sink; the operator named the sinks.
#[expect(clippy::cast_precision_loss, reason = "a metric is a float; 2^53 events are ages")]
fn outbox_families(counters: &ControlCounters) -> prometheus::Result<Vec<MetricFamily>> {
    let by_sink = |name: &str, help: &str| CounterVec::new(Opts::new(name, help), &["sink"]);
    let help = "Events that a sink has not taken yet.";
    let backlog = GaugeVec::new(Opts::new("bedside_outbox_backlog", help), &["sink"])?;
    let sent = by_sink("bedside_outbox_sent_total", "Events that a sink has taken.")?;
    let refused = by_sink("bedside_outbox_refused_total", "Attempts that a sink refused.")?;
    let parked = by_sink("bedside_outbox_parked_total", "Events that were given up.")?;
    for (sink, counts) in counters.outbox() {
        backlog.with_label_values(&[&sink]).set(counts.backlog as f64);
        sent.with_label_values(&[&sink]).inc_by(counts.sent as f64);
        refused.with_label_values(&[&sink]).inc_by(counts.refused as f64);
        parked.with_label_values(&[&sink]).inc_by(counts.parked as f64);
    }
    let mut families = backlog.collect();
    families.extend([&sent, &refused, &parked].into_iter().flat_map(Collector::collect));
    // The encoder takes no family without a line, and there may be no sink.
    families.retain(|family| !family.get_metric().is_empty());
    Ok(families)
}

const JOIN_SECONDS: &str = "bedside_join_seconds";
const JOIN_SECONDS_HELP: &str = "From a join's request to its media transport being up.";

impl Collector for Doors {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = door_families(&self.signaling).unwrap_or_else(|error| {
            tracing::error!(%error, "signaling counters cannot be shown");
            Vec::new()
        });
        families.push(join_times(&self.signaling.join_times));
        families
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float; 2^53 joins are ages")]
fn door_families(counters: &SignalingCounters) -> prometheus::Result<Vec<MetricFamily>> {
    let mut families = Vec::new();
    let mut refused = None;
    for (name, help, value) in counters.values() {
        if let Some(reason) = name.strip_prefix("refused_") {
            let family = match &refused {
                Some(family) => family,
                None => refused.insert(CounterVec::new(
                    Opts::new("bedside_refused_joins_total", help),
                    &["reason"],
                )?),
            };
            family.with_label_values(&[reason]).inc_by(value as f64);
        } else if let Some(help) = help.strip_prefix("Gauge: ") {
            let gauge = Gauge::new(format!("bedside_{name}"), help)?;
            gauge.set(value as f64);
            families.extend(gauge.collect());
        } else {
            let counter = Counter::new(format!("bedside_{name}_total"), help)?;
            counter.inc_by(value as f64);
            families.extend(counter.collect());
        }
    }
    families.extend(refused.iter().flat_map(Collector::collect));
    Ok(families)
}

fn join_times(times: &bedside_signaling::counters::Histogram) -> MetricFamily {
    let cumulative = times.cumulative();
    let mut histogram = proto::Histogram::default();
    histogram.set_sample_count(cumulative.last().map_or(0, |(_, count)| *count));
    histogram.set_sample_sum(times.sum_seconds());
    // The encoder adds the infinite one.
    let finite = cumulative.into_iter().filter(|(bound, _)| bound.is_finite());
    let buckets = finite.map(|(bound, count)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    let mut metric = proto::Metric::default();
    metric.set_histogram(histogram);
    let mut family = MetricFamily::default();
    family.set_name(JOIN_SECONDS.into());
    family.set_help(JOIN_SECONDS_HELP.into());
    family.set_field_type(proto::MetricType::HISTOGRAM);
    family.set_metric(vec![metric]);
    family
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn metrics() -> Metrics {
        let counters = Counters { rooms: 3, nack_in: 4, dropped_unknown: 5, ..Counters::default() };
        Metrics::new(Arc::new(move || counters), Arc::default()).unwrap()
    }

    #[test]
    fn the_engine_is_shown_by_kind() {
        let metrics = metrics();
        metrics.answered(404);
        let open = metrics.connection();
        let text = metrics.text().unwrap();
        for line in [
            "bedside_rooms 3",
            "# TYPE bedside_rooms gauge",
            "bedside_nack_in_total 4",
            "# TYPE bedside_nack_in_total counter",
            "bedside_dropped_packets_total{reason=\"unknown\"} 5",
            "bedside_http_requests_total{status=\"4xx\"} 1",
            "bedside_http_connections 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        drop(open);
        assert!(metrics.text().unwrap().contains("bedside_http_connections 0"));
    }

    #[test]
    fn consultations_are_shown_by_status() {
        let counters = ControlCounters::default();
        counters.joins.add();
        counters.channels.add();
        let text =
            TextEncoder::new().encode_to_string(&control_families(&counters).unwrap()).unwrap();
        for line in [
            "bedside_consultations{status=\"IN_PROGRESS\"} 0",
            "bedside_control_joins_total 1",
            "# TYPE bedside_control_channels gauge",
            "bedside_control_channels 1",
            "# HELP bedside_control_channels Open channels.",
            "bedside_control_rate_limited_total 0",
            "bedside_control_checks_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn signaling_is_shown_with_its_join_times() {
        let signaling = Arc::new(SignalingCounters::default());
        let metrics = Metrics::new(Arc::new(Counters::default), Arc::clone(&signaling)).unwrap();
        signaling.joins.up();
        signaling.sessions.up();
        signaling.refused_full.up();
        signaling.join_times.record(Duration::from_millis(250));
        let text = metrics.text().unwrap();
        for line in [
            "bedside_joins_total 1",
            "bedside_signal_sessions 1",
            "# TYPE bedside_signal_sessions gauge",
            "bedside_refused_joins_total{reason=\"full\"} 1",
            "bedside_refused_joins_total{reason=\"token\"} 0",
            "# TYPE bedside_join_seconds histogram",
            "bedside_join_seconds_bucket{le=\"0.2\"} 0",
            "bedside_join_seconds_bucket{le=\"0.3\"} 1",
            "bedside_join_seconds_bucket{le=\"+Inf\"} 1",
            "bedside_join_seconds_sum 0.25",
            "bedside_join_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
