//! What a consultation costs: decimal arithmetic, without clock or database.
//!
//! - `FLAT`: one fee.
//! - `PER_MINUTE`: every started minute costs the rate, and at least `minimum_minutes` are paid.
//! - `TIERED`: the first tier that holds the started minutes; what is longer than the last tier
//!   costs as much as the last tier.
//!
//! Time runs from `actual_start` to `actual_end`, in whole seconds. Pauses count: the doctor keeps
//! the time free. What was completed is paid; what was cancelled, missed or failed costs nothing,
//! unless [`BillingConfig`] says otherwise. The amount is rounded half-even to the currency's minor
//! unit. The price at the end counts: the amount is stored with the end, in one transaction, and no
//! later change of the price moves it. Who had no price then pays nothing. A consultation that is
//! opened again and ends again is priced anew, from its first begin to its last end; if nobody comes
//! back to it, its first end counts.

mod currency;

use std::fmt;

use rust_decimal::prelude::ToPrimitive as _;
use rust_decimal::{Decimal, RoundingStrategy};

use crate::consultation::{Consultation, Status};
pub use currency::Currency;

/// The highest price, in major units: the largest whole number of a `DECIMAL(10,2)`.
pub(crate) const MAX_PRICE: i64 = 99_999_999;
/// The longest minimum, and the longest tier.
pub(crate) const MAX_MINUTES: i64 = 1_440;
/// The most tiers.
pub(crate) const MAX_TIERS: usize = 50;
/// How many minutes are paid at least, where nobody says how many.
pub(crate) const DEFAULT_MINIMUM_MINUTES: i64 = 5;
/// By how many digits a rate per minute may be finer than the minor unit.
pub(crate) const RATE_DIGITS: u32 = 4;

/// What costs something although it was not completed. Nothing, unless set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BillingConfig {
    /// A consultation that was called off: as one of no length.
    pub charge_cancelled: bool,
    /// A consultation to which somebody did not come: as one of no length.
    pub charge_no_show: bool,
    /// A consultation that a technical failure ended: for as long as it lasted.
    pub charge_failed: bool,
}

/// An amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    /// In the currency's minor unit.
    pub minor: i64,
    /// Which currency.
    pub currency: Currency,
}

impl Money {
    /// In major units, with as many digits as the currency has.
    pub fn amount(&self) -> Decimal {
        Decimal::new(self.minor, self.currency.digits())
    }

    /// Rounds half-even to the minor unit.
    pub(crate) fn rounded(amount: Decimal, currency: Currency) -> Result<Self, BillingError> {
        let scale = Decimal::from(10_i64.pow(currency.digits()));
        let minor = amount.checked_mul(scale).ok_or(BillingError::TooMuch)?;
        let minor = minor.round_dp_with_strategy(0, RoundingStrategy::MidpointNearestEven);
        Ok(Self { minor: minor.to_i64().ok_or(BillingError::TooMuch)?, currency })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.amount(), f)
    }
}

/// Why there is no amount, or no such price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BillingError {
    /// The amount does not fit.
    #[error("the amount is too large")]
    TooMuch,
    /// The price cannot be.
    #[error("{0}")]
    Price(&'static str),
}

/// One tier of a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tier {
    /// The longest consultation that it holds.
    pub(crate) up_to_minutes: i64,
    /// In major units.
    pub(crate) price: Decimal,
}

/// How a price is reckoned. Amounts are in major units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// One fee.
    Flat { fee: Decimal },
    /// By started minutes.
    PerMinute { rate: Decimal, minimum_minutes: i64 },
    /// By length, shortest first.
    Tiered(Vec<Tier>),
}

impl Plan {
    /// The word used in the API and in the tables.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Flat { .. } => "FLAT",
            Self::PerMinute { .. } => "PER_MINUTE",
            Self::Tiered(_) => "TIERED",
        }
    }
}

/// A price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pricing {
    pub(crate) currency: Currency,
    pub(crate) plan: Plan,
}

impl Pricing {
    /// A price that can be stored and reckoned with. Nothing is rounded to make it fit.
    pub(crate) fn checked(currency: Currency, plan: Plan) -> Result<Self, BillingError> {
        let digits = currency.digits();
        match &plan {
            Plan::Flat { fee } => must_fit(*fee, digits)?,
            Plan::PerMinute { rate, minimum_minutes } => {
                must_fit(*rate, digits + RATE_DIGITS)?;
                if !(0..=MAX_MINUTES).contains(minimum_minutes) {
                    return Err(BillingError::Price("minimumMinutes must be from 0 to 1440"));
                }
            }
            Plan::Tiered(tiers) => {
                if tiers.is_empty() || tiers.len() > MAX_TIERS {
                    return Err(BillingError::Price("tierConfig must have from 1 to 50 tiers"));
                }
                let mut shorter = 0;
                for tier in tiers {
                    must_fit(tier.price, digits)?;
                    if tier.up_to_minutes <= shorter || tier.up_to_minutes > MAX_MINUTES {
                        return Err(BillingError::Price(
                            "upToMinutes must rise from tier to tier, from 1 to 1440",
                        ));
                    }
                    shorter = tier.up_to_minutes;
                }
            }
        }
        Ok(Self { currency, plan })
    }
}

fn must_fit(amount: Decimal, digits: u32) -> Result<(), BillingError> {
    if amount.is_sign_negative() && !amount.is_zero() || amount > Decimal::from(MAX_PRICE) {
        return Err(BillingError::Price("a price must be from 0 to 99999999"));
    }
    if amount.normalize().scale() > digits {
        return Err(BillingError::Price("a price has more digits than its currency"));
    }
    Ok(())
}

/// What so many seconds cost.
pub(crate) fn charge(pricing: &Pricing, seconds: i64) -> Result<Money, BillingError> {
    let minutes = started_minutes(seconds);
    let amount = match &pricing.plan {
        Plan::Flat { fee } => *fee,
        Plan::PerMinute { rate, minimum_minutes } => {
            let minutes = Decimal::from(minutes.max(*minimum_minutes));
            rate.checked_mul(minutes).ok_or(BillingError::TooMuch)?
        }
        Plan::Tiered(tiers) => {
            let tier =
                tiers.iter().find(|tier| minutes <= tier.up_to_minutes).or_else(|| tiers.last());
            tier.ok_or(BillingError::Price("the price has no tiers"))?.price
        }
    };
    Money::rounded(amount, pricing.currency)
}

/// Every minute that has begun.
pub(crate) fn started_minutes(seconds: i64) -> i64 {
    let seconds = seconds.max(0);
    seconds / 60 + i64::from(seconds % 60 != 0)
}

/// For how many seconds a consultation is paid that stands so and lasted so long (none = it never
/// began); none = it costs nothing.
pub(crate) fn billed_seconds(
    status: Status,
    lasted: Option<i64>,
    config: BillingConfig,
) -> Option<i64> {
    match status {
        // Ended without ever having begun: nothing took place.
        Status::Completed => lasted,
        Status::Cancelled => config.charge_cancelled.then_some(0),
        Status::NoShow => config.charge_no_show.then_some(0),
        Status::Failed => lasted.filter(|_| config.charge_failed),
        Status::Scheduled | Status::Waiting | Status::InProgress | Status::Paused => None,
    }
}

/// How long a consultation lasted, in whole seconds.
pub(crate) fn lasted(consultation: &Consultation) -> Option<i64> {
    let (start, end) = consultation.actual_start.zip(consultation.actual_end)?;
    Some((end - start).num_seconds().max(0))
}

#[cfg(test)]
mod tests;
