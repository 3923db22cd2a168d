//! What the edge counts.

use std::sync::Arc;
use std::time::SystemTime;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::certificate::Shown;

/// What came in, and what was turned away.
#[derive(Clone, Debug)]
pub(crate) struct EdgeCounters {
    connections: IntCounterVec,
    refused: IntCounterVec,
    certificates: IntCounterVec,
}

/// Why a connection ended before it was anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its address has all of its places.
    Address,
    /// It said nothing whole, and somebody else needed the place.
    Crowded,
    /// It said nothing whole in time, or went.
    Silent,
    /// What it said is nothing that is served here.
    Stranger,
    /// The TLS handshake failed, or took too long.
    Handshake,
}

impl Refusal {
    const ALL: [Self; 5] =
        [Self::Address, Self::Crowded, Self::Silent, Self::Stranger, Self::Handshake];

    const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Crowded => "crowded",
            Self::Silent => "silent",
            Self::Stranger => "stranger",
            Self::Handshake => "handshake",
        }
    }
}

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
    /// TURN over TCP.
    Turn,
    /// TURN over TLS.
    Turns,
    /// Media over TCP.
    IceTcp,
    /// An authority's question.
    Challenge,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Http, Self::Https, Self::Turn, Self::Turns, Self::IceTcp, Self::Challenge];

    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Turn => "turn",
            Self::Turns => "turns",
            Self::IceTcp => "ice_tcp",
            Self::Challenge => "acme",
        }
    }
}

impl EdgeCounters {
    /// Shown by this registry.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let family = |name: &str, help: &str, label: &str| {
            let family = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let counters = Self {
            connections: family(
                "bedside_edge_connections_total",
                "Connections taken, by what their first bytes were.",
                "kind",
            )?,
            refused: family(
                "bedside_edge_refused_total",
                "Connections ended before they were anything, by reason.",
                "reason",
            )?,
            certificates: family(
                "bedside_tls_certificates_total",
                "New certificates, by whether they could be used.",
                "result",
            )?,
        };
        for kind in Kind::ALL {
            counters.connections.with_label_values(&[kind.name()]);
        }
        for refusal in Refusal::ALL {
            counters.refused.with_label_values(&[refusal.name()]);
        }
        for result in ["good", "bad"] {
            counters.certificates.with_label_values(&[result]);
        }
        Ok(counters)
    }

    /// A connection is known.
    pub(super) fn taken(&self, kind: Kind) {
        self.connections.with_label_values(&[kind.name()]).inc();
    }

    /// A connection ends without having been anything.
    pub(super) fn refused(&self, refusal: Refusal) {
        self.refused.with_label_values(&[refusal.name()]).inc();
    }

    /// There was a new certificate, or should have been.
    pub(super) fn reloaded(&self, good: bool) {
        let result = if good { "good" } else { "bad" };
        self.certificates.with_label_values(&[result]).inc();
    }
}

/// When the shown certificate ends.
pub(crate) struct Expiry {
    shown: Arc<Shown>,
    gauge: IntGauge,
}

impl Expiry {
    /// Of what is shown when somebody looks.
    pub(crate) fn new(shown: Arc<Shown>) -> prometheus::Result<Self> {
        let gauge = IntGauge::new(
            "bedside_tls_certificate_expiry_seconds",
            "When the certificate ends, in seconds since 1970; 0 = there is none yet.",
        )?;
        Ok(Self { shown, gauge })
    }
}

impl Collector for Expiry {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let until = self.shown.current().map(|certificate| certificate.until());
        let since = until.and_then(|until| until.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.gauge.set(since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)));
        self.gauge.collect()
    }
}
