//! Prices, and what consultations cost.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use super::{Connected, Db, Tx, execute, fetch, unknown_word};
use crate::billing::{
    self, BillingConfig, Currency, Money, Plan, Pricing, RATE_DIGITS, Tier, billed_seconds,
};
use crate::consultation::{Consultation, Mode, Status};

macro_rules! columns {
    () => {
        "SELECT doctor_id, consultation_mode, pricing_type, flat_fee_minor, per_minute_rate_e4, \
         minimum_minutes, tier_config, currency, is_active, created_at, updated_at \
         FROM consultation_pricing "
    };
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TierJson {
    up_to_minutes: i64,
    price_minor: i64,
}

#[derive(sqlx::FromRow)]
struct PricingRow {
    doctor_id: String,
    consultation_mode: String,
    pricing_type: String,
    flat_fee_minor: Option<i64>,
    per_minute_rate_e4: Option<i64>,
    minimum_minutes: i64,
    tier_config: Option<Json<Vec<TierJson>>>,
    currency: String,
    is_active: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// The stored price of a doctor for one mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DoctorPrice {
    pub(crate) doctor_id: String,
    pub(crate) mode: Mode,
    pub(crate) pricing: Pricing,
    /// Counts; else it is only kept.
    pub(crate) is_active: bool,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl PricingRow {
    fn into_price(self) -> Result<DoctorPrice, sqlx::Error> {
        let mode = Mode::parse(&self.consultation_mode)
            .ok_or_else(|| unknown_word("consultation_mode", &self.consultation_mode))?;
        let currency = Currency::parse(&self.currency)
            .ok_or_else(|| unknown_word("currency", &self.currency))?;
        let digits = currency.digits();
        let plan = match self.pricing_type.as_str() {
            "FLAT" => {
                self.flat_fee_minor.map(|minor| Plan::Flat { fee: Decimal::new(minor, digits) })
            }
            "PER_MINUTE" => self.per_minute_rate_e4.map(|rate| Plan::PerMinute {
                rate: Decimal::new(rate, digits + RATE_DIGITS),
                minimum_minutes: self.minimum_minutes,
            }),
            "TIERED" => self.tier_config.map(|Json(tiers)| {
                let tiers = tiers.into_iter().map(|tier| Tier {
                    up_to_minutes: tier.up_to_minutes,
                    price: Decimal::new(tier.price_minor, digits),
                });
                Plan::Tiered(tiers.collect())
            }),
            _ => None,
        };
        let plan = plan.ok_or_else(|| unknown_word("pricing_type", &self.pricing_type))?;
        let pricing = Pricing::checked(currency, plan)
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok(DoctorPrice {
            doctor_id: self.doctor_id,
            mode,
            pricing,
            is_active: self.is_active,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// What one consultation costs, fixed at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bill {
    /// None: it cost nothing whatever the price.
    pub(crate) billed_seconds: Option<i64>,
    /// None: there was no price.
    pub(crate) pricing_type: Option<String>,
    /// None: there was no price.
    pub(crate) amount: Option<Money>,
    pub(crate) fixed_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct BillRow {
    billed_seconds: Option<i64>,
    pricing_type: Option<String>,
    amount_minor: Option<i64>,
    currency: Option<String>,
    fixed_at: DateTime<Utc>,
}

impl Db {
    /// Stores the price of a doctor for one mode, in place of the one before.
    pub(crate) async fn put_price(
        &self,
        clinic: &str,
        price: &DoctorPrice,
        by: &str,
    ) -> Result<DoctorPrice, sqlx::Error> {
        const SQL: &str = "INSERT INTO consultation_pricing \
            (id, clinic, doctor_id, consultation_mode, pricing_type, flat_fee_minor, \
             per_minute_rate_e4, minimum_minutes, tier_config, currency, minor_digits, is_active, \
             updated_by, created_at, updated_at) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14) \
            ON CONFLICT (clinic, doctor_id, consultation_mode) DO UPDATE SET \
            pricing_type = excluded.pricing_type, flat_fee_minor = excluded.flat_fee_minor, \
            per_minute_rate_e4 = excluded.per_minute_rate_e4, \
            minimum_minutes = excluded.minimum_minutes, tier_config = excluded.tier_config, \
            currency = excluded.currency, minor_digits = excluded.minor_digits, \
            is_active = excluded.is_active, updated_by = excluded.updated_by, \
            updated_at = excluded.updated_at";
        let digits = price.pricing.currency.digits();
        let mut fee = None;
        let mut rate = None;
        let mut minimum = billing::DEFAULT_MINIMUM_MINUTES;
        let mut tiers = None;
        match &price.pricing.plan {
            Plan::Flat { fee: amount } => fee = Some(scaled(*amount, digits)?),
            Plan::PerMinute { rate: amount, minimum_minutes } => {
                rate = Some(scaled(*amount, digits + RATE_DIGITS)?);
                minimum = *minimum_minutes;
            }
            Plan::Tiered(all) => {
                let all = all.iter().map(|tier| {
                    let price_minor = scaled(tier.price, digits)?;
                    Ok(TierJson { up_to_minutes: tier.up_to_minutes, price_minor })
                });
                tiers = Some(Json(all.collect::<Result<Vec<_>, sqlx::Error>>()?));
            }
        }
        let mut tx = self.begin().await?;
        execute!(
            &mut tx,
            SQL,
            Uuid::now_v7(),
            clinic,
            &price.doctor_id,
            price.mode.as_str(),
            price.pricing.plan.as_str(),
            fee,
            rate,
            minimum,
            &tiers,
            price.pricing.currency.as_str(),
            i64::from(digits),
            price.is_active,
            by,
            price.updated_at,
        )?;
        let stored = one(&mut tx, clinic, &price.doctor_id, price.mode).await?;
        tx.commit().await?;
        stored.ok_or(sqlx::Error::RowNotFound)
    }

    /// A doctor's prices, one for each mode that has one.
    pub(crate) async fn prices(
        &self,
        clinic: &str,
        doctor_id: &str,
    ) -> Result<Vec<DoctorPrice>, sqlx::Error> {
        const SQL: &str =
            concat!(columns!(), "WHERE clinic = $1 AND doctor_id = $2 ORDER BY consultation_mode");
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, PricingRow, SQL, clinic, doctor_id)?;
        rows.into_iter().map(PricingRow::into_price).collect()
    }

    /// What was fixed at the end of a consultation.
    pub(crate) async fn bill(
        &self,
        clinic: &str,
        session_id: Uuid,
    ) -> Result<Option<Bill>, sqlx::Error> {
        const SQL: &str = "SELECT billed_seconds, pricing_type, amount_minor, currency, fixed_at \
            FROM session_billing WHERE clinic = $1 AND session_id = $2";
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_optional, BillRow, SQL, clinic, session_id)?;
        let Some(row) = row else { return Ok(None) };
        let amount = match (row.amount_minor, row.currency) {
            (Some(minor), Some(code)) => {
                let currency =
                    Currency::parse(&code).ok_or_else(|| unknown_word("currency", &code))?;
                Some(Money { minor, currency })
            }
            _ => None,
        };
        Ok(Some(Bill {
            billed_seconds: row.billed_seconds,
            pricing_type: row.pricing_type,
            amount,
            fixed_at: row.fixed_at,
        }))
    }
}

/// As a whole number of the last digit; what was checked fits.
fn scaled(amount: Decimal, digits: u32) -> Result<i64, sqlx::Error> {
    let scale = Decimal::from(10_i64.pow(digits));
    let number = amount.checked_mul(scale).and_then(|scaled| scaled.to_i64());
    number.ok_or_else(|| sqlx::Error::Encode("a price does not fit".into()))
}

async fn one(
    on: &mut impl Connected,
    clinic: &str,
    doctor_id: &str,
    mode: Mode,
) -> Result<Option<DoctorPrice>, sqlx::Error> {
    const SQL: &str =
        concat!(columns!(), "WHERE clinic = $1 AND doctor_id = $2 AND consultation_mode = $3");
    let mode = mode.as_str();
    let row = fetch!(on, fetch_optional, PricingRow, SQL, clinic, doctor_id, mode)?;
    row.map(PricingRow::into_price).transpose()
}

/// A consultation has ended: what it costs is fixed, by the price of this moment. The end never
/// fails for want of an amount.
pub(super) async fn fix_amount(
    tx: &mut Tx,
    consultation: &Consultation,
    config: BillingConfig,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "INSERT INTO session_billing \
        (session_id, clinic, billed_seconds, pricing_type, amount_minor, currency, minor_digits, \
         fixed_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
        ON CONFLICT (session_id) DO UPDATE SET billed_seconds = excluded.billed_seconds, \
        pricing_type = excluded.pricing_type, amount_minor = excluded.amount_minor, \
        currency = excluded.currency, minor_digits = excluded.minor_digits, \
        fixed_at = excluded.fixed_at";
    let called_off = matches!(consultation.status, Status::Cancelled | Status::NoShow);
    if called_off && consultation.actual_start.is_some() {
        // It took place, was opened again, and nobody came back: its first end counts.
        return Ok(());
    }
    let price = one(tx, &consultation.clinic, &consultation.doctor_id, consultation.mode).await?;
    let pricing = price.filter(|price| price.is_active).map(|price| price.pricing);
    let seconds = billed_seconds(consultation.status, billing::lasted(consultation), config);
    let amount = pricing.as_ref().and_then(|pricing| {
        let Some(seconds) = seconds else {
            return Some(Money { minor: 0, currency: pricing.currency });
        };
        let charged = billing::charge(pricing, seconds);
        charged
            .inspect_err(|error| {
                tracing::error!(session = %consultation.id, %error, "no amount for a consultation");
            })
            .ok()
    });
    execute!(
        tx,
        SQL,
        consultation.id,
        &consultation.clinic,
        seconds,
        pricing.as_ref().map(|pricing| pricing.plan.as_str()),
        amount.map(|amount| amount.minor),
        amount.map(|amount| amount.currency.as_str()),
        amount.map(|amount| i64::from(amount.currency.digits())),
        now,
    )?;
    Ok(())
}
