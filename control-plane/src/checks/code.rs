//! The short code under which a check is looked up: said over a telephone, typed by somebody else.
//!
//! Its letters and digits are those that nobody takes for another (no `0` and `O`, no `1`, `I` and
//! `L`, no `B` and `8` …), and there are no vowels, so that no code is a word.

const ALPHABET: &[u8; 20] = b"CDFHJKMNPQRTVWXY3479";

/// How long a code is: some 43 random bits, which nobody guesses at the rate that callers have.
pub(crate) const CODE_LEN: usize = 8;

/// The largest multiple of the alphabet's length in a byte: above it some letters would be likelier.
const FAIR: u8 = 240;

/// A code of random bytes; none if too many of them were of no use.
pub(crate) fn from_random(bytes: &[u8]) -> Option<String> {
    let letters = bytes.iter().filter(|byte| **byte < FAIR).filter_map(|byte| {
        ALPHABET.get(usize::from(*byte) % ALPHABET.len()).copied().map(char::from)
    });
    let code: String = letters.take(CODE_LEN).collect();
    (code.len() == CODE_LEN).then_some(code)
}

/// What somebody typed, as the code that was meant: case, spaces and dashes make no difference.
pub(crate) fn read(typed: &str) -> Option<String> {
    let mut code = String::with_capacity(CODE_LEN);
    for letter in typed.chars().filter(|letter| !matches!(letter, ' ' | '-')) {
        let letter = letter.to_ascii_uppercase();
        let known = u8::try_from(letter).is_ok_and(|byte| ALPHABET.contains(&byte));
        if !known || code.len() == CODE_LEN {
            return None;
        }
        code.push(letter);
    }
    (code.len() == CODE_LEN).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_letters_that_nobody_confuses() {
        let all: Vec<u8> = (0..=255).collect();
        for start in 0..200 {
            let code = from_random(&all[start..]).unwrap();
            assert_eq!(code.len(), CODE_LEN);
            assert!(code.bytes().all(|byte| !b"01258ABEGILOSUZ6".contains(&byte)), "{code}");
        }
        // Each letter of as many bytes as any other.
        let mut counts = [0; 128];
        for byte in 0..FAIR {
            let code = from_random(&[byte; CODE_LEN]).unwrap();
            counts[usize::from(code.as_bytes()[0])] += 1;
        }
        assert!(ALPHABET.iter().all(|letter| counts[usize::from(*letter)] == 12));
        assert_eq!(from_random(&[FAIR; 64]), None);
        assert_eq!(from_random(&[1; CODE_LEN - 1]), None);
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        for typed in ["CDFH3479", "cdfh3479", "CDFH-3479", " c d f h - 3479 "] {
            assert_eq!(read(typed).as_deref(), Some("CDFH3479"), "{typed}");
        }
        let long = "C".repeat(100_000);
        for typed in ["", "CDFH347", "CDFH34799", "CDFH347O", "CDFH347\u{0}", "ÇDFH3479", &long] {
            assert_eq!(read(typed), None, "{typed}");
        }
    }
}
