//! Which role may do what: the one table, and the scopes of service keys.
//!
//! A permission says what kind of thing a caller may do at all. Whose things those are is the
//! business of `Caller`: its own clinic always, and for people their own
//! consultations. The word of a permission is the scope that a service key needs for it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::token::ApiRole;

/// A kind of thing to do.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
pub enum Permission {
    /// See consultations.
    #[serde(rename = "consultations:read")]
    ReadConsultations,
    /// Make consultations.
    #[serde(rename = "consultations:create")]
    CreateConsultations,
    /// Join and leave consultations.
    #[serde(rename = "consultations:join")]
    JoinConsultations,
    /// Start, admit, send back, pause, end, call off, report a no-show.
    #[serde(rename = "consultations:lead")]
    LeadConsultations,
    /// Read the chat and its files.
    #[serde(rename = "chat:read")]
    ReadChat,
    /// Write to the chat and send files.
    #[serde(rename = "chat:write")]
    WriteChat,
    /// Make and revoke join links.
    #[serde(rename = "links:manage")]
    ManageLinks,
    /// Read what happened, in order.
    #[serde(rename = "events:read")]
    ReadEvents,
    /// See prices, payments and what a consultation costs.
    #[serde(rename = "billing:read")]
    ReadBilling,
    /// Set prices, take in and verify payments.
    #[serde(rename = "billing:manage")]
    ManageBilling,
    /// Give feedback.
    #[serde(rename = "feedback:give")]
    GiveFeedback,
    /// Read feedback.
    #[serde(rename = "feedback:read")]
    ReadFeedback,
    /// Report technical issues and figures of quality.
    #[serde(rename = "issues:report")]
    ReportIssues,
    /// Read technical issues.
    #[serde(rename = "issues:read")]
    ReadIssues,
    /// Make, list and revoke service keys; revoke tokens.
    #[serde(rename = "keys:manage")]
    ManageKeys,
    /// Read the audit log.
    #[serde(rename = "audit:read")]
    ReadAudit,
}

impl Permission {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 16] = [
        Self::ReadConsultations,
        Self::CreateConsultations,
        Self::JoinConsultations,
        Self::LeadConsultations,
        Self::ReadChat,
        Self::WriteChat,
        Self::ManageLinks,
        Self::ReadEvents,
        Self::ReadBilling,
        Self::ManageBilling,
        Self::GiveFeedback,
        Self::ReadFeedback,
        Self::ReportIssues,
        Self::ReadIssues,
        Self::ManageKeys,
        Self::ReadAudit,
    ];

    /// The word, which is also the scope of a service key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadConsultations => "consultations:read",
            Self::CreateConsultations => "consultations:create",
            Self::JoinConsultations => "consultations:join",
            Self::LeadConsultations => "consultations:lead",
            Self::ReadChat => "chat:read",
            Self::WriteChat => "chat:write",
            Self::ManageLinks => "links:manage",
            Self::ReadEvents => "events:read",
            Self::ReadBilling => "billing:read",
            Self::ManageBilling => "billing:manage",
            Self::GiveFeedback => "feedback:give",
            Self::ReadFeedback => "feedback:read",
            Self::ReportIssues => "issues:report",
            Self::ReadIssues => "issues:read",
            Self::ManageKeys => "keys:manage",
            Self::ReadAudit => "audit:read",
        }
    }

    /// The permission with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == word)
    }

    /// The table: may this role do it?
    pub const fn granted_to(self, role: ApiRole) -> bool {
        let [doctor, patient, guest, service, admin, auditor] = match self {
            //                           doctor patient guest  service admin auditor
            Self::ReadConsultations => [true, true, true, true, true, false],
            Self::CreateConsultations => [true, false, false, true, true, false],
            Self::JoinConsultations => [true, true, true, true, true, false],
            Self::LeadConsultations => [true, false, false, true, true, false],
            Self::ReadChat => [true, true, true, true, true, false],
            Self::WriteChat => [true, true, true, true, true, false],
            Self::ManageLinks => [true, false, false, true, true, false],
            Self::ReadEvents => [false, false, false, true, true, false],
            Self::ReadBilling => [true, true, false, true, true, false],
            Self::ManageBilling => [false, false, false, true, true, false],
            Self::GiveFeedback => [true, true, true, true, true, false],
            Self::ReadFeedback => [true, true, false, true, true, false],
            Self::ReportIssues => [true, true, true, true, true, false],
            Self::ReadIssues => [true, false, false, true, true, false],
            Self::ManageKeys => [false, false, false, false, true, false],
            Self::ReadAudit => [false, false, false, false, true, true],
        };
        match role {
            ApiRole::Doctor => doctor,
            ApiRole::Patient => patient,
            ApiRole::Guest => guest,
            ApiRole::Service => service,
            ApiRole::Admin => admin,
            ApiRole::Auditor => auditor,
        }
    }
}

/// What a service key may do, of what its role may.
pub type Scopes = BTreeSet<Permission>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_has_its_own_word() {
        let words: BTreeSet<&str> = Permission::ALL.iter().map(|p| p.as_str()).collect();
        assert_eq!(words.len(), Permission::ALL.len());
        for permission in Permission::ALL {
            assert_eq!(Permission::parse(permission.as_str()), Some(permission));
            let json = serde_json::to_value(permission).expect("a word");
            assert_eq!(json, permission.as_str());
        }
        assert_eq!(Permission::parse("root"), None);
    }

    #[test]
    fn the_table_keeps_people_from_the_keys_and_auditors_from_the_patients() {
        for permission in Permission::ALL {
            let auditor = permission.granted_to(ApiRole::Auditor);
            assert_eq!(auditor, permission == Permission::ReadAudit, "{permission:?}");
        }
        for role in [ApiRole::Doctor, ApiRole::Patient, ApiRole::Guest, ApiRole::Service] {
            assert!(!Permission::ManageKeys.granted_to(role), "{role:?}");
            assert!(!Permission::ReadAudit.granted_to(role), "{role:?}");
        }
        for role in [ApiRole::Patient, ApiRole::Guest] {
            assert!(!Permission::LeadConsultations.granted_to(role));
            assert!(!Permission::CreateConsultations.granted_to(role));
            assert!(!Permission::ManageLinks.granted_to(role));
        }
    }
}
