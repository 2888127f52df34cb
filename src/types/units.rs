//! Sizes and durations as people write them: `"8MiB"`, `"30s"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a text is not a size or a duration; the message says how to write it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number without a unit.
    #[error("\"{0}\" has no unit; write \"{0}{1}\" for {2}")]
    NoUnit(String, &'static str, &'static str),
    /// A unit that is not known.
    #[error("\"{0}\" has the unit \"{1}\", which is none of {2}")]
    UnknownUnit(String, String, &'static str),
    /// No number at the beginning.
    #[error("\"{0}\" does not begin with a whole number; write e.g. \"{1}\"")]
    NoNumber(String, &'static str),
    /// More than can be held.
    #[error("\"{0}\" is too large")]
    TooLarge(String),
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text, "8MiB")?;
        if unit.is_empty() {
            return Err(UnitError::NoUnit(text.to_owned(), "B", "bytes"));
        }
        let Some((_, factor)) = SIZES.iter().find(|(name, _)| *name == unit) else {
            return Err(UnitError::UnknownUnit(
                text.to_owned(),
                unit.to_owned(),
                "B, KiB, MiB, GiB",
            ));
        };
        number
            .checked_mul(*factor)
            .map(Self)
            .ok_or_else(|| UnitError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = SIZES
            .into_iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A duration in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

const DURATIONS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text, "30s")?;
        if unit.is_empty() {
            return Err(UnitError::NoUnit(text.to_owned(), "s", "seconds"));
        }
        let Some((_, factor)) = DURATIONS.iter().find(|(name, _)| *name == unit) else {
            return Err(UnitError::UnknownUnit(
                text.to_owned(),
                unit.to_owned(),
                "ms, s, min, h, d",
            ));
        };
        number
            .checked_mul(*factor)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| UnitError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if ms == 0 {
            return f.write_str("0s");
        }
        let (unit, factor) = DURATIONS
            .into_iter()
            .find(|(_, factor)| ms.is_multiple_of(*factor))
            .unwrap_or(("ms", 1));
        write!(f, "{}{unit}", ms / factor)
    }
}

fn split<'a>(text: &'a str, example: &'static str) -> Result<(u64, &'a str), UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::NoNumber(text.to_owned(), example));
    }
    let number = number.parse().map_err(|_| UnitError::TooLarge(text.to_owned()))?;
    Ok((number, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed_with_their_unit() {
        for (text, bytes) in [
            ("0B", 0),
            ("17B", 17),
            ("8MiB", 8 << 20),
            ("2GiB", 2 << 30),
            ("3KiB", 3072),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn durations_are_read_and_printed_with_their_unit() {
        for (text, ms) in [
            ("0s", 0),
            ("15ms", 15),
            ("30s", 30_000),
            ("5min", 300_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(
                text.parse(),
                Ok(HumanDuration(Duration::from_millis(ms))),
                "{text}"
            );
            assert_eq!(HumanDuration(Duration::from_millis(ms)).to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_says_the_fix() {
        for (text, message) in [
            ("30", "\"30\" has no unit; write \"30s\" for seconds"),
            (
                "30 s",
                "\"30 s\" has the unit \" s\", which is none of ms, s, min, h, d",
            ),
            (
                "s",
                "\"s\" does not begin with a whole number; write e.g. \"30s\"",
            ),
            ("99999999999999999999s", "\"99999999999999999999s\" is too large"),
            ("18446744073709551615d", "\"18446744073709551615d\" is too large"),
        ] {
            assert_eq!(text.parse::<HumanDuration>().unwrap_err().to_string(), message);
        }
    }
}
