//! Ethernet addresses.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Error, Result, ensure};

/// An Ethernet address, in the order of the bytes on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All ones: everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeroes: the target MAC of a question.
    pub const ZERO: Self = Self([0; 6]);
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part =
                parts.next().with_context(|| format!("MAC address {text} has fewer than six bytes"))?;
            *byte = u8::from_str_radix(part, 16)
                .with_context(|| format!("MAC address {text}: {part} is no hexadecimal byte"))?;
        }
        ensure!(parts.next().is_none(), "MAC address {text} has more than six bytes");
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&bytes.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree_both_ways() {
        let mac: Mac = "02:00:00:00:07:f7".parse().expect("well formed");
        assert_eq!(mac, Mac([2, 0, 0, 0, 7, 0xf7]));
        assert_eq!(mac.to_string(), "02:00:00:00:07:f7");
    }

    #[test]
    fn five_seven_and_odd_bytes_are_refused() {
        for text in ["02:00:00:00:07", "02:00:00:00:07:f7:01", "02:00:00:00:07:xx", ""] {
            assert!(text.parse::<Mac>().is_err(), "{text} was taken");
        }
    }
}
