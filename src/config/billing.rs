//! Sections `billing` and `payments`: what costs something, and who must have paid.

use bedside_control_plane::BillingConfig;
use serde::{Deserialize, Serialize};

/// What costs something although it was not completed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Billing {
    /// Charge a consultation that was called off as one of no length.
    pub(crate) charge_cancelled: bool,
    /// Charge a consultation to which somebody did not come as one of no length.
    pub(crate) charge_no_show: bool,
    /// Charge a consultation that a technical failure ended for as long as it lasted.
    pub(crate) charge_failed: bool,
}

impl Billing {
    /// As the control plane has it.
    pub(crate) const fn charges(&self) -> BillingConfig {
        BillingConfig {
            charge_cancelled: self.charge_cancelled,
            charge_no_show: self.charge_no_show,
            charge_failed: self.charge_failed,
        }
    }
}

/// The payment gate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Payments {
    /// Must an appointment be paid before its patient comes in?
    pub(crate) required: bool,
}
