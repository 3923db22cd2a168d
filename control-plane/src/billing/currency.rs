//! Currencies of ISO 4217, and how many digits their minor unit has.

use std::fmt;

/// Every current code whose minor unit has two digits.
const TWO_DIGITS: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL \
    BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP \
    GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK \
    LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR \
    NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN \
    SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UZS VED VES WST XCD XCG YER ZAR ZMW ZWG";
/// Currencies without a minor unit.
const NO_DIGITS: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const THREE_DIGITS: &str = "BHD IQD JOD KWD LYD OMR TND";
const FOUR_DIGITS: &str = "CLF UYW";

/// A currency.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Currency {
    code: &'static str,
    digits: u32,
}

impl Currency {
    /// Where nobody names one.
    pub const INR: Self = Self { code: "INR", digits: 2 };

    /// The currency with this code, in either case.
    pub fn parse(code: &str) -> Option<Self> {
        [(NO_DIGITS, 0), (TWO_DIGITS, 2), (THREE_DIGITS, 3), (FOUR_DIGITS, 4)]
            .into_iter()
            .flat_map(|(codes, digits)| codes.split(' ').map(move |code| Self { code, digits }))
            .find(|known| known.code.eq_ignore_ascii_case(code))
    }

    /// Its three letters.
    pub const fn as_str(self) -> &'static str {
        self.code
    }

    /// How many digits its minor unit has: 0 for yen, 2 for rupees, 3 for dinars.
    pub const fn digits(self) -> u32 {
        self.digits
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_three_letters_and_has_one_exponent() {
        let mut codes: Vec<&str> = [TWO_DIGITS, NO_DIGITS, THREE_DIGITS, FOUR_DIGITS]
            .iter()
            .flat_map(|codes| codes.split(' '))
            .collect();
        let all = codes.len();
        assert!(codes.iter().all(|c| c.len() == 3 && c.bytes().all(|b| b.is_ascii_uppercase())));
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all, "a code is listed twice");
    }

    #[test]
    fn exponents_are_those_of_the_standard() {
        for (code, digits) in [("JPY", 0), ("INR", 2), ("eur", 2), ("KWD", 3), ("CLF", 4)] {
            let currency = Currency::parse(code).expect(code);
            assert_eq!(currency.digits(), digits, "{code}");
            assert_eq!(currency.as_str(), code.to_ascii_uppercase());
        }
        for code in ["", "IN", "INRR", "INX", " ", "INR JPY", "€"] {
            assert_eq!(Currency::parse(code), None, "{code:?}");
        }
    }
}
