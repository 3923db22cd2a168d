//! Starts TLS from the settings, and keeps its certificate good.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::{Notify, watch};

use super::Tls;
use super::acme;
use super::certificate::{Files, Shown, warn_if_ending};
use super::counters::EdgeCounters;
use crate::config::CertificateSource;

/// TLS, and the way to say that its files have changed.
#[derive(Clone, Debug)]
pub(crate) struct Secure {
    /// For listeners.
    pub(crate) tls: Tls,
    again: Arc<Notify>,
}

impl Secure {
    /// Reads the certificate for the first time, or starts to ask for it.
    pub(crate) fn start(
        source: CertificateSource,
        counters: &EdgeCounters,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let shown = Arc::new(Shown::default());
        let tls = Tls::new(Arc::clone(&shown))?;
        let again = Arc::new(Notify::new());
        match source {
            CertificateSource::Files { certificate, key } => {
                let files = Files::new(certificate, key);
                let first = files.load().context("tls.certificate_path, tls.key_path")?;
                warn_if_ending(&first, std::time::SystemTime::now());
                shown.change(first);
                tokio::spawn(files.watch(shown, Arc::clone(&again), counters.clone(), stop));
            }
            CertificateSource::Acme(authority) => {
                let keeper = acme::Keeper::new(authority, tls.clone(), counters.clone())
                    .context("tls.acme_folder")?;
                tokio::spawn(keeper.run(Arc::clone(&again), stop));
            }
        }
        Ok(Self { tls, again })
    }

    /// Looks at the certificate again, now.
    pub(crate) fn reload(&self) {
        self.again.notify_one();
    }
}
