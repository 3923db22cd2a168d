//! What the operator does by command, without a caller of the API: keys, and the audit log.
//!
//! It is in the audit log like everything else, as the deed of `operator`.

use uuid::Uuid;

use crate::audit::{self, Deed, Line, Report, Who, export};
use crate::permissions::Scopes;
use crate::service_keys::{KeyError, MadeKey, NewKey};
use crate::store::AuditPage;
use crate::{ChangeError, ControlPlane, view};

/// How many rows are read at once.
const PAGE: i64 = 5_000;

/// A service key, without the key.
#[derive(Clone, Debug)]
pub struct KeySummary {
    /// Names it for revoking.
    pub id: Uuid,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: String,
    /// When it ends.
    pub expires_at: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<String>,
}

impl ControlPlane {
    /// Makes a service key.
    pub async fn create_key(&self, clinic: &str, new: &NewKey) -> Result<MadeKey, KeyError> {
        let deed = deed(clinic, "keys create");
        let made = deed.run(self.control.create_key(clinic, "operator", new)).await?;
        Ok(made.1)
    }

    /// A clinic's service keys, the newest first.
    pub async fn keys(&self, clinic: &str) -> Result<Vec<KeySummary>, ChangeError> {
        let rows = self.control.within(self.control.db.keys(clinic)).await?;
        let keys = rows.into_iter().map(|row| KeySummary {
            id: row.id,
            name: row.name,
            scopes: row.scopes.0,
            created_at: view::time(row.created_at),
            expires_at: row.expires_at.map(view::time),
            revoked_at: row.revoked_at.map(view::time),
        });
        Ok(keys.collect())
    }

    /// Revokes a service key; servers on the same database hear of it within a second. `false`:
    /// the clinic has no such key.
    pub async fn revoke_key(&self, clinic: &str, id: Uuid) -> Result<bool, ChangeError> {
        let deed = deed(clinic, "keys revoke");
        let revoke = async {
            audit::subject(&id.to_string());
            self.control.revoke_key(clinic, id).await
        };
        deed.run(revoke).await
    }

    /// Checks a clinic's audit log, or everybody's.
    pub async fn verify_audit(&self, clinic: Option<&str>) -> Result<Report, ChangeError> {
        let keys = self.control.config.keys.clone();
        Ok(export::verify(&self.control.db, keys, clinic).await?)
    }

    /// Reads a clinic's audit log from the beginning, a page at a time.
    pub async fn export_audit(
        &self,
        clinic: &str,
        mut page: impl FnMut(Vec<Line>) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>, ChangeError> {
        let deed = deed(clinic, "audit export");
        self.control.close_deed(&deed, audit::Outcome::Done).await?;
        let mut after = 0;
        loop {
            let asked = AuditPage { after, limit: PAGE, ..AuditPage::default() };
            let (lines, last) = export::page(&self.control.db, clinic, &asked).await?;
            let Some(last) = last else { return Ok(Ok(())) };
            if let Err(error) = page(lines) {
                return Ok(Err(error));
            }
            after = last;
        }
    }
}

fn deed(clinic: &str, action: &str) -> std::sync::Arc<Deed> {
    let who = Who {
        clinic: clinic.to_owned(),
        id: "operator".to_owned(),
        kind: "operator",
        credential: None,
    };
    Deed::of(who, action, audit::Origin::default())
}
