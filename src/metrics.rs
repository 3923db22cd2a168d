//! `/metrics`: the engine's counters, HTTP answers and join times, for Prometheus.
//!
//! The engine counts in plain numbers of its own; they are read when somebody asks. No label names
//! a person, a room or an address.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedside_sfu::core::api::{ParticipantInfo, ParticipantSid, ParticipantState};
use bedside_sfu::core::counters::Counters;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, CounterVec, Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// Reads the engine's counters.
pub(crate) type ReadCounters = Arc<dyn Fn() -> Counters + Send + Sync>;

/// Everything that `/metrics` shows.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    http: IntCounterVec,
    http_connections: IntGauge,
    join_seconds: Histogram,
}

impl Metrics {
    /// Registers all metrics.
    pub(crate) fn new(read: ReadCounters) -> prometheus::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(Engine { read }))?;
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
        let join_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "bedside_join_seconds",
                "From a participant's joining to its media transport being up.",
            )
            .buckets(vec![0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0]),
        )?;
        registry.register(Box::new(join_seconds.clone()))?;
        let info = IntGauge::with_opts(
            Opts::new("bedside_build_info", "Always 1.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        info.set(1);
        registry.register(Box::new(info))?;
        Ok(Self { registry, http, http_connections, join_seconds })
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

/// Measures joins by what is told about participants.
#[derive(Debug)]
pub(crate) struct JoinTimes {
    histogram: Histogram,
    joining: HashMap<ParticipantSid, Instant>,
}

impl JoinTimes {
    /// A person who has no media after this long is counted elsewhere, as a failed join.
    const FORGET: Duration = Duration::from_secs(120);

    /// Measures into these metrics.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self { histogram: metrics.join_seconds.clone(), joining: HashMap::new() }
    }

    /// Takes note of a participant's state.
    pub(crate) fn see(&mut self, info: &ParticipantInfo, now: Instant) {
        match info.state {
            ParticipantState::Joined => {
                self.joining.retain(|_, since| now.duration_since(*since) < Self::FORGET);
                self.joining.entry(info.sid.clone()).or_insert(now);
            }
            ParticipantState::Active => {
                if let Some(since) = self.joining.remove(&info.sid) {
                    self.histogram.observe(now.duration_since(since).as_secs_f64());
                }
            }
            ParticipantState::Disconnected(_) => {
                self.joining.remove(&info.sid);
            }
        }
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

#[cfg(test)]
mod tests {
    use bedside_sfu::core::api::{Grant, LeaveReason};

    use super::*;

    fn metrics() -> Metrics {
        let counters = Counters { rooms: 3, nack_in: 4, dropped_unknown: 5, ..Counters::default() };
        Metrics::new(Arc::new(move || counters)).unwrap()
    }

    fn person(sid: &str, state: ParticipantState) -> ParticipantInfo {
        ParticipantInfo {
            sid: ParticipantSid(sid.into()),
            profile: Arc::default(),
            grant: Grant::default(),
            state,
            tracks: Vec::new(),
            joined_at_ms: 0,
            version: 0,
        }
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
    fn a_join_is_measured_once() {
        let metrics = metrics();
        let mut joins = JoinTimes::new(&metrics);
        let start = Instant::now();
        joins.see(&person("PA_1", ParticipantState::Joined), start);
        joins.see(&person("PA_1", ParticipantState::Joined), start + Duration::from_millis(100));
        joins.see(&person("PA_1", ParticipantState::Active), start + Duration::from_millis(250));
        joins.see(&person("PA_1", ParticipantState::Active), start + Duration::from_secs(9));
        let gone = ParticipantState::Disconnected(LeaveReason::ClientInitiated);
        joins.see(&person("PA_2", ParticipantState::Joined), start);
        joins.see(&person("PA_2", gone), start);
        joins.see(&person("PA_2", ParticipantState::Active), start);
        assert_eq!(metrics.join_seconds.get_sample_count(), 1);
        assert!((metrics.join_seconds.get_sample_sum() - 0.25).abs() < 1e-9);
        assert!(joins.joining.is_empty());
    }
}
