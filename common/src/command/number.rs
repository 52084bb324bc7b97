//! Numbers as Redis reads them. Stricter than Rust's parsers in one place, laxer in another; both are copied here so
//! that an argument is refused before anything is locked if, and only if, Redis would refuse it.

/// An integer of 64 bits as `string2ll` of Redis takes it: no plus, no leading zeros, no spaces, no `-0`.
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let digits = match text {
        [b'-', rest @ ..] => rest,
        all => all,
    };
    match digits {
        [b'0'] if text.len() == 1 => Some(0),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(text).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// An unsigned integer as stream ids have it. Redis would also take leading zeros and a plus here (`strtoull`); an id
/// has one spelling with us.
pub(crate) fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        [b'0'] => Some(0),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(text).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// How many bytes of digits begin the text.
fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Whether the text is a float as `strtod`/`strtold` read one completely: decimal with an exponent, hexadecimal, or
/// infinite; never NaN, never with spaces. Only syntax: whether it fits is `fits_f64` and, for long doubles, Redis.
#[must_use]
pub fn is_float(text: &[u8]) -> bool {
    /// Redis copies the text of a float into a buffer of this size.
    const TEXT_BYTES_MAX: usize = 255;
    if text.len() > TEXT_BYTES_MAX {
        return false;
    }
    let unsigned = match text {
        [b'+' | b'-', rest @ ..] => rest,
        all => all,
    };
    if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
        return true;
    }
    match unsigned {
        [b'0', b'x' | b'X', hex @ ..] => {
            let is_hex = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            mantissa_and_exponent(hex, is_hex, b'p')
        }
        decimal => mantissa_and_exponent(decimal, digits, b'e'),
    }
}

fn mantissa_and_exponent(text: &[u8], digits_of: impl Fn(&[u8]) -> usize, mark: u8) -> bool {
    let whole = digits_of(text);
    let mut rest = &text[whole..];
    let mut fraction = 0;
    if let [b'.', after @ ..] = rest {
        fraction = digits_of(after);
        rest = &after[fraction..];
    }
    if whole + fraction == 0 {
        return false;
    }
    match rest {
        [] => true,
        [m, exponent @ ..] if m.eq_ignore_ascii_case(&mark) => {
            let exponent = match exponent {
                [b'+' | b'-', rest @ ..] => rest,
                all => all,
            };
            !exponent.is_empty() && digits(exponent) == exponent.len()
        }
        _ => false,
    }
}

/// Whether the text, a float by [`is_float`], is within a double: neither too large nor rounded to zero. Hexadecimal texts
/// are not taken, as Valkey from 9.1 does not take them.
pub(crate) fn fits_f64(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let Ok(value) = text.parse::<f64>() else { return false };
    if value.is_infinite() {
        return text.bytes().any(|b| b.eq_ignore_ascii_case(&b'n'));
    }
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    value != 0.0 || !mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b))
}

/// Whether the text, a float by [`is_float`], is certainly outside a long double, which `INCRBYFLOAT` counts in. The last
/// decimal power at either end, and hexadecimal texts, are left to Redis.
pub(crate) fn leaves_long_double(text: &[u8]) -> bool {
    /// The decimal powers of the largest and the smallest long double.
    const POWERS: std::ops::RangeInclusive<i64> = -4_951..=4_932;
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let text = text.trim_start_matches(['+', '-']);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let Some(first) = mantissa.bytes().filter(|b| *b != b'.').position(|b| b != b'0') else {
        return false;
    };
    let whole = mantissa.find('.').unwrap_or(mantissa.len());
    // An exponent beyond 64 bits is outside in any case, but for its sign.
    let exponent = exponent.parse::<i64>().unwrap_or(i64::MAX / 2);
    // Both are lengths of a short text.
    let point = i64::try_from(whole).unwrap_or(0) - i64::try_from(first).unwrap_or(0) - 1;
    let digits = mantissa.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    digits && !POWERS.contains(&(exponent.saturating_add(point)))
}
