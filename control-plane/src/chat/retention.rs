//! Chat is kept for a time, and then gone: rows and files.
//!
//! Files go first: if that fails, the row stays and the next turn tries again, so that nothing is
//! left in the store that no row knows of. A turn removes a bounded number, and the database is
//! free for others between two turns.

use std::sync::Arc;
use std::time::Duration;

use crate::control::Control;
use crate::store;

/// How many messages one turn removes.
const MOST: i64 = 500;
/// How long a file may wait for its message before it is taken for an upload that failed.
const UNSENT: Duration = Duration::from_secs(3_600);

impl Control {
    /// One turn; `true` = there was as much as one turn takes, and there may be more.
    pub(crate) async fn sweep_chat(&self) -> bool {
        let now = store::now();
        let age = |span: Duration| {
            chrono::Duration::from_std(span).ok().and_then(|span| now.checked_sub_signed(span))
        };
        let mut full = false;
        if let Some(before) = age(self.config.chat.retention) {
            full = self.sweep_messages(before).await;
        }
        if let Some(before) = age(UNSENT) {
            self.sweep_unsent(before).await;
        }
        full
    }

    async fn sweep_messages(&self, before: chrono::DateTime<chrono::Utc>) -> bool {
        let Ok(expired) = self.within(self.db.expired_messages(before, MOST)).await else {
            return false;
        };
        let full = i64::try_from(expired.len()).is_ok_and(|found| found >= MOST);
        let mut gone = Vec::with_capacity(expired.len());
        for message in expired {
            let kept = match message.attachment_id {
                Some(id) => self.files.remove(id).await.is_err(),
                None => false,
            };
            if !kept {
                gone.push(message);
            }
        }
        if gone.is_empty() {
            return false;
        }
        let removed = self.within(self.db.remove_messages(&gone)).await.is_ok();
        if removed {
            tracing::info!(messages = gone.len(), "chat past its time was removed");
        }
        full && removed
    }

    async fn sweep_unsent(&self, before: chrono::DateTime<chrono::Utc>) {
        let Ok(unsent) = self.within(self.db.unsent_attachments(before, MOST)).await else {
            return;
        };
        for id in unsent {
            if self.files.remove(id).await.is_ok() {
                // If it fails, it is found again next time.
                let _ = self.within(self.db.remove_attachment(id)).await;
            }
        }
    }

    /// Removes, turn by turn, what is past its time; once at the start and then every so often.
    pub(crate) async fn sweep_chat_for_ever(control: std::sync::Weak<Self>, every: Duration) {
        loop {
            loop {
                let Some(control) = control.upgrade() else { return };
                let more = Arc::clone(&control).sweep_chat().await;
                drop(control);
                if !more {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            tokio::time::sleep(every).await;
        }
    }
}
