//! What is done again and again beside the requests: hearing of revocations, sealing the audit log.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::audit::sealer;
use crate::control::Control;
use crate::revocation;

/// How often the log says where the audit chains end.
const TELL_HEADS: Duration = Duration::from_secs(3600);

/// Starts it all; it ends when the set is dropped. Each thing has a task of its own, so that a slow
/// one holds up no other.
pub(crate) fn start(control: &Arc<Control>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let own = Arc::clone(control);
    tasks.spawn(async move {
        let mut ticks = interval(revocation::INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 0.. {
            ticks.tick().await;
            own.hear_revocations(round).await;
        }
    });
    let own = Arc::clone(control);
    tasks.spawn(async move {
        let mut ticks = interval(sealer::INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            own.seal_audit().await;
        }
    });
    let own = Arc::clone(control);
    tasks.spawn(async move {
        let mut ticks = interval(TELL_HEADS);
        loop {
            ticks.tick().await;
            own.tell_heads().await;
        }
    });
    tasks
}
