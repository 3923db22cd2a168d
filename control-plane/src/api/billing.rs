//! Prices of doctors, and what consultations cost.
//!
//! Amounts are written as decimals in text (`"500.00"`), which no reader rounds, and read as text
//! or as numbers.

use std::fmt;

use axum::Json;
use axum::extract::{Path, State};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use super::problem::Problem;
use super::{Body, sessions};
use crate::access::Caller;
use crate::billing::{
    BillingError, Currency, DEFAULT_MINIMUM_MINUTES, Money, Plan, Pricing, Tier, started_minutes,
};
use crate::consultation::{Consultation, Mode};
use crate::permissions::Permission;
use crate::store::{self, Bill, DoctorPrice};
use crate::token::ApiRole;
use crate::{ControlPlane, text, view};

/// The longest amount that is read.
const MAX_AMOUNT_LEN: usize = 20;

/// An amount in major units, from text or from a number.
#[derive(Clone, Copy)]
pub(crate) struct Amount(Decimal);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount such as \"500.00\" or 500")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                let plain = |b: u8| b.is_ascii_digit() || b == b'.';
                let digit = |b: Option<&u8>| b.is_some_and(u8::is_ascii_digit);
                let bytes = text.as_bytes();
                let whole = bytes.len() <= MAX_AMOUNT_LEN
                    && bytes.iter().all(|b| plain(*b))
                    && digit(bytes.first())
                    && digit(bytes.last());
                let amount = whole.then(|| Decimal::from_str_exact(text).ok()).flatten();
                amount
                    .map(Amount)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Other("this"), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount(Decimal::from(number)))
            }

            // The shortest text of a float is what was written, for as many digits as prices have.
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl utoipa::PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[0-9]{1,8}([.][0-9]{1,8})?$"))
            .examples(["500.00"]);
        let number = ObjectBuilder::new()
            .schema_type(Type::Number)
            .minimum(Some(0.0))
            .maximum(Some(99_999_999.0));
        OneOfBuilder::new().item(text).item(number).into()
    }
}

impl utoipa::ToSchema for Amount {}

/// One tier of a price.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TierRequest {
    /// The longest consultation that it holds.
    #[serde(alias = "up_to_minutes")]
    #[schema(minimum = 1, maximum = 1440)]
    up_to_minutes: i64,
    price: Amount,
}

/// A doctor's price for one mode.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PricingRequest {
    /// `VIDEO`, `AUDIO`, `CHAT`.
    #[serde(alias = "consultation_mode", alias = "mode")]
    consultation_mode: String,
    /// `FLAT` (if absent), `PER_MINUTE`, `TIERED`.
    #[serde(alias = "pricing_type")]
    pricing_type: Option<String>,
    /// For `FLAT`.
    #[serde(alias = "flat_fee")]
    #[schema(value_type = Amount, required = false)]
    flat_fee: Option<Amount>,
    /// For `PER_MINUTE`: for each started minute; up to four digits finer than the currency.
    #[serde(alias = "per_minute_rate")]
    #[schema(value_type = Amount, required = false)]
    per_minute_rate: Option<Amount>,
    /// For `PER_MINUTE`: so many are paid at least; 5 if absent.
    #[serde(alias = "minimum_minutes")]
    #[schema(minimum = 0, maximum = 1440)]
    minimum_minutes: Option<i64>,
    /// For `TIERED`: the first tier that holds the consultation counts, the last one beyond.
    #[serde(alias = "tier_config")]
    tier_config: Option<Vec<TierRequest>>,
    /// ISO 4217; `INR` if absent.
    currency: Option<String>,
    /// Does it count? It does if absent.
    #[serde(alias = "is_active")]
    is_active: Option<bool>,
}

/// One tier of a price.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TierView {
    /// The longest consultation that it holds.
    up_to_minutes: i64,
    /// In major units.
    price: String,
}

/// A doctor's price for one mode.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PricingView {
    doctor_id: String,
    /// `VIDEO`, `AUDIO`, `CHAT`.
    consultation_mode: &'static str,
    /// `FLAT`, `PER_MINUTE`, `TIERED`.
    pricing_type: &'static str,
    /// For `FLAT`, in major units.
    flat_fee: Option<String>,
    /// For `PER_MINUTE`, in major units.
    per_minute_rate: Option<String>,
    /// For `PER_MINUTE`.
    minimum_minutes: Option<i64>,
    /// For `TIERED`.
    tier_config: Option<Vec<TierView>>,
    currency: &'static str,
    is_active: bool,
    created_at: String,
    updated_at: String,
}

/// A doctor's prices, one for each mode that has one.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct PricingList {
    items: Vec<PricingView>,
}

/// What a consultation costs.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BillingView {
    session_id: uuid::Uuid,
    /// Is it over, and the amount fixed?
    is_final: bool,
    /// `FLAT`, `PER_MINUTE`, `TIERED`; none: there was no price.
    pricing_type: Option<String>,
    /// From begin to end; none: it cost nothing.
    billed_seconds: Option<i64>,
    /// Every minute that had begun.
    billed_minutes: Option<i64>,
    /// In major units, as `500.00`; none: there was no price, or it is not over.
    amount_charged: Option<String>,
    /// In the currency's minor unit.
    amount_minor: Option<i64>,
    currency: Option<&'static str>,
    fixed_at: Option<String>,
}

/// The prices of a doctor. For the clinic's staff, and for the doctor.
#[utoipa::path(get, path = "/api/v1/consultations/pricing/{doctorId}",
    params(("doctorId" = String, Path)),
    responses((status = 200, body = PricingList), (status = 401), (status = 403),
        (status = 404, description = "This doctor has no price")))]
pub(crate) async fn prices(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(doctor_id): Path<String>,
) -> Result<Json<PricingList>, Problem> {
    caller.may(Permission::ReadBilling)?;
    let own = caller.0.role == ApiRole::Doctor && caller.0.user_id == doctor_id;
    if !own && !caller.is_staff() {
        return Err(Problem::forbidden("prices are for the clinic's staff and the doctor"));
    }
    let prices = state.control.prices(&caller.0.clinic, &doctor_id).await?;
    if prices.is_empty() {
        return Err(Problem::not_found("this doctor has no price"));
    }
    Ok(Json(PricingList { items: prices.iter().map(shown).collect() }))
}

/// Sets the price of a doctor for one mode. Consultations that are over keep their amount.
#[utoipa::path(put, path = "/api/v1/consultations/pricing/{doctorId}",
    params(("doctorId" = String, Path)), request_body = PricingRequest,
    responses((status = 200, body = PricingView), (status = 400), (status = 401), (status = 403),
        (status = 422, description = "A field does not fit")))]
pub(crate) async fn put_price(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(doctor_id): Path<String>,
    Body(request): Body<PricingRequest>,
) -> Result<Json<PricingView>, Problem> {
    caller.may(Permission::ManageBilling)?;
    if !text::is_id(&doctor_id) {
        return Err(Problem::invalid("doctorId is empty, too long or not text"));
    }
    let price = read_price(doctor_id, request)?;
    let stored = state.control.put_price(&caller.0.clinic, &price, &caller.0.user_id).await?;
    Ok(Json(shown(&stored)))
}

/// What a consultation costs: fixed at its end. For its patient, its doctor and the staff.
#[utoipa::path(get, path = "/api/v1/consultations/sessions/{id}/billing",
    params(("id" = String, Path)),
    responses((status = 200, body = BillingView), (status = 401), (status = 403), (status = 404)))]
pub(crate) async fn billing(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<BillingView>, Problem> {
    let consultation = sessions::own(&state, &caller, &id).await?;
    caller.may(Permission::ReadBilling)?;
    let bill = state.control.bill(&consultation).await?;
    Ok(Json(bill_shown(&consultation, bill)))
}

fn read_price(doctor_id: String, request: PricingRequest) -> Result<DoctorPrice, Problem> {
    let mode = Mode::parse(&request.consultation_mode.to_ascii_uppercase())
        .ok_or_else(|| Problem::invalid("consultationMode must be VIDEO, AUDIO or CHAT"))?;
    let currency = match request.currency.as_deref() {
        None => Currency::INR,
        Some(code) => Currency::parse(code)
            .ok_or_else(|| Problem::invalid("currency is not one of ISO 4217"))?,
    };
    let kind = request.pricing_type.as_deref().unwrap_or("FLAT").to_ascii_uppercase();
    let plan = match kind.as_str() {
        "FLAT" => {
            let fee = request.flat_fee.ok_or_else(|| Problem::invalid("FLAT needs flatFee"))?;
            Plan::Flat { fee: fee.0 }
        }
        "PER_MINUTE" => {
            let rate = request
                .per_minute_rate
                .ok_or_else(|| Problem::invalid("PER_MINUTE needs perMinuteRate"))?;
            let minimum_minutes = request.minimum_minutes.unwrap_or(DEFAULT_MINIMUM_MINUTES);
            Plan::PerMinute { rate: rate.0, minimum_minutes }
        }
        "TIERED" => {
            let tiers =
                request.tier_config.ok_or_else(|| Problem::invalid("TIERED needs tierConfig"))?;
            let tiers = tiers
                .iter()
                .map(|tier| Tier { up_to_minutes: tier.up_to_minutes, price: tier.price.0 });
            Plan::Tiered(tiers.collect())
        }
        _ => return Err(Problem::invalid("pricingType must be FLAT, PER_MINUTE or TIERED")),
    };
    let now = store::now();
    Ok(DoctorPrice {
        doctor_id,
        mode,
        pricing: Pricing::checked(currency, plan)?,
        is_active: request.is_active.unwrap_or(true),
        created_at: now,
        updated_at: now,
    })
}

impl From<BillingError> for Problem {
    fn from(error: BillingError) -> Self {
        Self::invalid(error.to_string())
    }
}

fn shown(price: &DoctorPrice) -> PricingView {
    let currency = price.pricing.currency;
    // Checked when it was stored: it has no more digits than these.
    let amount = |amount: &Decimal| {
        let mut amount = amount.normalize();
        amount.rescale(amount.scale().max(currency.digits()));
        amount.to_string()
    };
    let mut view = PricingView {
        doctor_id: price.doctor_id.clone(),
        consultation_mode: price.mode.as_str(),
        pricing_type: price.pricing.plan.as_str(),
        flat_fee: None,
        per_minute_rate: None,
        minimum_minutes: None,
        tier_config: None,
        currency: currency.as_str(),
        is_active: price.is_active,
        created_at: view::time(price.created_at),
        updated_at: view::time(price.updated_at),
    };
    match &price.pricing.plan {
        Plan::Flat { fee } => view.flat_fee = Some(amount(fee)),
        Plan::PerMinute { rate, minimum_minutes } => {
            view.per_minute_rate = Some(amount(rate));
            view.minimum_minutes = Some(*minimum_minutes);
        }
        Plan::Tiered(tiers) => {
            let tiers = tiers.iter().map(|tier| TierView {
                up_to_minutes: tier.up_to_minutes,
                price: amount(&tier.price),
            });
            view.tier_config = Some(tiers.collect());
        }
    }
    view
}

fn bill_shown(consultation: &Consultation, bill: Option<Bill>) -> BillingView {
    let amount: Option<Money> = bill.as_ref().and_then(|bill| bill.amount);
    let billed_seconds = bill.as_ref().and_then(|bill| bill.billed_seconds);
    BillingView {
        session_id: consultation.id,
        is_final: bill.is_some(),
        billed_seconds,
        billed_minutes: billed_seconds.map(started_minutes),
        amount_charged: amount.map(|amount| amount.to_string()),
        amount_minor: amount.map(|amount| amount.minor),
        currency: amount.map(|amount| amount.currency.as_str()),
        fixed_at: bill.as_ref().map(|bill| view::time(bill.fixed_at)),
        pricing_type: bill.and_then(|bill| bill.pricing_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<String> {
        serde_json::from_str::<Amount>(json).ok().map(|amount| amount.0.to_string())
    }

    #[test]
    fn amounts_are_read_exactly_from_text_and_numbers() {
        for (json, amount) in [
            ("500", "500"),
            ("500.00", "500"),
            ("0.1", "0.1"),
            ("1e2", "100"),
            ("99999999.99", "99999999.99"),
            (r#""500.00""#, "500.00"),
            (r#""0.12345678""#, "0.12345678"),
        ] {
            assert_eq!(read(json).as_deref(), Some(amount), "{json}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for json in [
            "-1",
            "-0.5",
            "1e300",
            "1e-300",
            "null",
            "true",
            "[]",
            "{}",
            r#""""#,
            r#"".5""#,
            r#""5.""#,
            r#""1.2.3""#,
            r#""-1""#,
            r#""+1""#,
            r#""1_000""#,
            r#""1e3""#,
            r#"" 1""#,
            r#""१""#,
            r#""NaN""#,
            r#""123456789012345678901""#,
        ] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
