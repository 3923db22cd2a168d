//! Logs: one line of text or one JSON object per record, on standard error.
//!
//! Records carry ids and numbers. Names, tokens, message text and query strings never reach this
//! point: they are wrapped in `Private`, which shows nothing.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::layer::{Context, Filter, Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// Starts logging; call once.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&log.filter)
        .with_context(|| format!("log.filter: {:?} cannot be understood", log.filter))?;
    // The broker's client would show whole messages, and those hold join links.
    let filter = ["lapin=error", "lapin::returned_messages=off"]
        .into_iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(filter, EnvFilter::add_directive);
    let filter = filter.and(Expected);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match log.format {
        LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
        LogFormat::Text => {
            layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed()
        }
    };
    let started = tracing_subscriber::registry().with(layer).try_init();
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Panics go into the log like everything else: where, and the text if it is part of the program.
/// A text made at run time may hold anything, so it is left out.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let text = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
    let thread = std::thread::current();
    tracing::error!(place, text, thread = thread.name().unwrap_or_default(), "panic");
}

/// Leaves out what looks like an error and is an answer: a queue or an exchange that is asked for
/// before it is made ("passively") is not there yet. The broker says so by closing the channel that
/// asked (404, to a method of class 40 or 50), and its client calls that an error.
struct Expected;

impl<S: Subscriber> Filter<S> for Expected {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        if event.metadata().target() != "lapin::channel" {
            return true;
        }
        let mut close = Close::default();
        event.record(&mut close);
        !close.says_not_there()
    }
}

/// The broker's `channel.close`, as its client shows it.
#[derive(Default)]
struct Close {
    method: String,
}

impl Close {
    fn says_not_there(&self) -> bool {
        let declares = ["class_id: 40, method_id: 10 ", "class_id: 50, method_id: 10 "];
        self.method.starts_with("Close { reply_code: 404,")
            && declares.iter().any(|declare| self.method.contains(declare))
    }
}

impl Visit for Close {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "method" {
            // Into text: that cannot fail.
            let _written = write!(self.method, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Shaped as the broker's client shows it.
    #[derive(Debug)]
    #[expect(dead_code, reason = "read by Debug alone")]
    struct CloseMethod {
        reply_code: u16,
        reply_text: &'static str,
        class_id: u16,
        method_id: u16,
    }

    /// What gets through, by reply code and class.
    #[derive(Clone, Default)]
    struct Through(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> tracing_subscriber::Layer<S> for Through {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut close = Close::default();
            event.record(&mut close);
            self.0.lock().unwrap().push(close.method);
        }
    }

    #[test]
    fn only_the_answer_to_a_question_is_left_out() {
        let through = Through::default();
        let layer = through.clone().with_filter(Expected);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let close = |reply_code, class_id, method_id| {
                struct Shown(CloseMethod);
                impl fmt::Debug for Shown {
                    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        // The generated type is called `Close`.
                        f.write_str(&format!("{:?}", self.0).replacen("CloseMethod", "Close", 1))
                    }
                }
                let reply_text = "NOT_FOUND - no queue";
                let method = Shown(CloseMethod { reply_code, reply_text, class_id, method_id });
                tracing::error!(target: "lapin::channel", ?method, "Channel closed");
            };
            close(404, 50, 10);
            close(404, 40, 10);
            close(404, 60, 40);
            close(403, 50, 10);
            close(406, 50, 10);
            tracing::error!(target: "lapin::channel", "something else");
            tracing::error!(target: "bedside", "reply_code: 404");
        });
        assert_eq!(through.0.lock().unwrap().len(), 5);
    }
}
