//! Amounts beside exact integer arithmetic, and prices that cannot be.

use super::*;

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).expect("a decimal")
}

fn currency(code: &str) -> Currency {
    Currency::parse(code).expect("a currency")
}

fn per_minute(rate: &str, minimum_minutes: i64, code: &str) -> Pricing {
    let plan = Plan::PerMinute { rate: decimal(rate), minimum_minutes };
    Pricing::checked(currency(code), plan).expect("a price")
}

fn tiered(tiers: &[(i64, &str)]) -> Pricing {
    let tiers = tiers.iter().map(|(up_to_minutes, price)| Tier {
        up_to_minutes: *up_to_minutes,
        price: decimal(price),
    });
    Pricing::checked(Currency::INR, Plan::Tiered(tiers.collect())).expect("a price")
}

fn shown(pricing: &Pricing, seconds: i64) -> String {
    charge(pricing, seconds).expect("an amount").to_string()
}

#[test]
fn a_flat_fee_does_not_look_at_the_time() {
    let plan = Plan::Flat { fee: decimal("500") };
    let pricing = Pricing::checked(Currency::INR, plan).expect("a price");
    for seconds in [i64::MIN, -1, 0, 1, 900, i64::MAX] {
        assert_eq!(shown(&pricing, seconds), "500.00");
    }
}

#[test]
fn started_minutes_are_paid_and_at_least_the_minimum() {
    let pricing = per_minute("10.25", 5, "INR");
    for (seconds, amount) in [
        (-60, "51.25"),
        (0, "51.25"),
        (299, "51.25"),
        (300, "51.25"),
        (301, "61.50"),
        (360, "61.50"),
        (361, "71.75"),
        (900, "153.75"),
    ] {
        assert_eq!(shown(&pricing, seconds), amount, "{seconds} s");
    }
    assert_eq!(shown(&per_minute("10.25", 0, "INR"), 0), "0.00");
}

#[test]
fn the_first_tier_that_holds_the_minutes_counts_and_the_last_one_beyond() {
    let pricing = tiered(&[(15, "500"), (30, "800.50")]);
    for (seconds, amount) in [
        (0, "500.00"),
        (900, "500.00"),
        (901, "800.50"),
        (1_800, "800.50"),
        (1_801, "800.50"),
        (i64::MAX, "800.50"),
    ] {
        assert_eq!(shown(&pricing, seconds), amount, "{seconds} s");
    }
}

#[test]
fn amounts_are_rounded_half_even_to_the_minor_unit() {
    for (rate, code, amount) in [
        // Half a unit goes to the even neighbour, on either side.
        ("0.5", "JPY", "0"),
        ("1.5", "JPY", "2"),
        ("2.5", "JPY", "2"),
        ("2.5001", "JPY", "3"),
        ("0.125", "INR", "0.12"),
        ("0.135", "INR", "0.14"),
        ("0.0005", "KWD", "0.000"),
        ("0.0015", "KWD", "0.002"),
        ("1.2345678", "KWD", "1.235"),
        ("0.00005", "CLF", "0.0000"),
    ] {
        assert_eq!(shown(&per_minute(rate, 1, code), 60), amount, "{rate} {code}");
    }
}

#[test]
fn prices_that_cannot_be_are_refused() {
    let flat =
        |fee: &str, code: &str| Pricing::checked(currency(code), Plan::Flat { fee: decimal(fee) });
    assert!(flat("99999999", "KWD").is_ok());
    assert!(flat("0.10", "INR").is_ok() && flat("5.000", "JPY").is_ok(), "zeros are no digits");
    assert!(flat("0.005", "KWD").is_ok());
    for (fee, code) in [("-0.01", "INR"), ("99999999.01", "INR"), ("0.001", "INR"), ("0.5", "JPY")]
    {
        assert!(flat(fee, code).is_err(), "{fee} {code}");
    }
    let rate = |rate: &str, minimum_minutes: i64| {
        let plan = Plan::PerMinute { rate: decimal(rate), minimum_minutes };
        Pricing::checked(Currency::INR, plan)
    };
    assert!(rate("0.000001", 0).is_ok() && rate("1", MAX_MINUTES).is_ok());
    for (price, minimum) in [("0.0000001", 0), ("-1", 0), ("1", -1), ("1", MAX_MINUTES + 1)] {
        assert!(rate(price, minimum).is_err(), "{price} {minimum}");
    }
    let tiers = |tiers: &[(i64, i64)]| {
        let tiers = tiers.iter().map(|(up_to_minutes, price)| Tier {
            up_to_minutes: *up_to_minutes,
            price: Decimal::from(*price),
        });
        Pricing::checked(Currency::INR, Plan::Tiered(tiers.collect()))
    };
    assert!(tiers(&[(1, 0), (MAX_MINUTES, 1)]).is_ok());
    let many: Vec<(i64, i64)> = (1..=51).map(|minutes| (minutes, 1)).collect();
    for bad in [&[][..], &[(0, 1)], &[(15, 1), (15, 2)], &[(30, 1), (15, 2)], &[(1, -1)], &many] {
        assert!(tiers(bad).is_err(), "{bad:?}");
    }
    assert!(tiers(&[(MAX_MINUTES + 1, 1)]).is_err());
}

#[test]
fn what_does_not_fit_is_an_error() {
    let pricing = per_minute("99999999", 5, "KWD");
    assert_eq!(charge(&pricing, i64::MAX), Err(BillingError::TooMuch));
    let year = 366 * 24 * 3_600;
    assert_eq!(shown(&pricing, year), "52703999472960.000");
    let huge = Pricing { currency: Currency::INR, plan: Plan::Flat { fee: Decimal::MAX } };
    assert_eq!(charge(&huge, 1), Err(BillingError::TooMuch));
    let empty = Pricing { currency: Currency::INR, plan: Plan::Tiered(Vec::new()) };
    assert!(charge(&empty, 1).is_err());
}

/// Numbers that look random, the same ones each time.
fn numbers(mut state: u64) -> impl FnMut(u64) -> i64 {
    move |below| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((state >> 33) % below).expect("small")
    }
}

/// Half-even in whole numbers.
fn divided(numerator: i128, denominator: i128) -> i128 {
    let (whole, rest) = (numerator / denominator, numerator % denominator);
    match (rest * 2).cmp(&denominator) {
        std::cmp::Ordering::Less => whole,
        std::cmp::Ordering::Equal => whole + whole % 2,
        std::cmp::Ordering::Greater => whole + 1,
    }
}

#[test]
fn a_rate_agrees_with_exact_integer_arithmetic() {
    let mut number = numbers(5);
    for round in 0..20_000 {
        let code = ["JPY", "INR", "KWD", "CLF"][round % 4];
        let scale = currency(code).digits() + RATE_DIGITS;
        // Ten-thousandths of the minor unit; every fourth is a half of the last digit kept.
        let rate_e4 = if round % 16 < 4 { number(1_000) * 5_000 } else { number(1 << 30) };
        let minimum = number(10);
        let seconds = number(200_000) - 100;
        let pricing = Pricing::checked(
            currency(code),
            Plan::PerMinute { rate: Decimal::new(rate_e4, scale), minimum_minutes: minimum },
        )
        .expect("a price");
        let minutes = ((seconds.max(0) + 59) / 60).max(minimum);
        let exact = divided(i128::from(rate_e4) * i128::from(minutes), 10_000);
        let charged = charge(&pricing, seconds).expect("it fits");
        assert_eq!(i128::from(charged.minor), exact, "{rate_e4} × {minutes} {code}");
    }
}

#[test]
fn longer_never_costs_less_and_tiers_agree_with_a_plain_search() {
    let mut number = numbers(6);
    for _ in 0..500 {
        let mut minutes = 0;
        let mut price = 0;
        let tiers: Vec<(i64, i64)> = (0..=number(6))
            .map(|_| {
                minutes += 1 + number(40);
                price += number(100_000);
                (minutes, price)
            })
            .collect();
        let plan = tiers.iter().map(|(up_to_minutes, price)| Tier {
            up_to_minutes: *up_to_minutes,
            price: Decimal::new(*price, 2),
        });
        let pricing =
            Pricing::checked(Currency::INR, Plan::Tiered(plan.collect())).expect("a price");
        let mut before = 0;
        for seconds in (0..20_000).step_by(37) {
            let charged = charge(&pricing, seconds).expect("it fits").minor;
            assert!(charged >= before);
            before = charged;
            let held = tiers.iter().filter(|(minutes, _)| seconds <= minutes * 60);
            let expected = held.map(|(_, price)| *price).min().or(Some(price));
            assert_eq!(Some(charged), expected, "{seconds} s in {tiers:?}");
        }
    }
}

#[test]
fn only_what_was_completed_costs_unless_configured() {
    let nothing = BillingConfig::default();
    let all = BillingConfig { charge_cancelled: true, charge_no_show: true, charge_failed: true };
    for (status, lasted, usual, configured) in [
        (Status::Completed, Some(61), Some(61), Some(61)),
        (Status::Completed, None, None, None),
        (Status::Cancelled, None, None, Some(0)),
        (Status::NoShow, None, None, Some(0)),
        (Status::Failed, Some(61), None, Some(61)),
        (Status::Failed, None, None, None),
        (Status::Scheduled, None, None, None),
        (Status::Waiting, None, None, None),
        (Status::InProgress, Some(61), None, None),
        (Status::Paused, Some(61), None, None),
    ] {
        assert_eq!(billed_seconds(status, lasted, nothing), usual, "{status:?}");
        assert_eq!(billed_seconds(status, lasted, all), configured, "{status:?}");
    }
}
