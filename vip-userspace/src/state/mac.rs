//! MAC addresses of guests.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A MAC address, in wire order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// An address from its octets, in wire order.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets in wire order.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// All zeros: the address of nothing.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }

    /// The group bit is set: no station sends from it (IEEE 802-2014 §8.2.2).
    pub const fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 1
    }

    /// One of 06:56:xx:xx:xx:xx, by which the forwarder answers for VIPs and gateways.
    pub const fn is_constant_range(self) -> bool {
        matches!(self.0, [0x06, 0x56, ..])
    }

    /// A virtual router's address, 00:00:5e:00:01:VRID or for IPv6 00:00:5e:00:02:VRID (RFC 9568 §7.3).
    pub const fn is_vrrp_virtual(self) -> bool {
        matches!(self.0, [0x00, 0x00, 0x5e, 0x00, 0x01 | 0x02, _])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, octet) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{octet:02x}")?;
        }
        Ok(())
    }
}

/// The text is not six pairs of hexadecimal digits with colons between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address of the form 02:00:00:00:07:f7")]
pub struct MacAddrError;

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(text: &str) -> Result<Self, MacAddrError> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().ok_or(MacAddrError)?;
            // `from_str_radix` alone would also take a sign or a single digit.
            if pair.len() != 2 || !pair.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(MacAddrError);
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| MacAddrError)?;
        }
        if pairs.next().is_some() { Err(MacAddrError) } else { Ok(Self(octets)) }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_six_pairs_of_digits_with_colons_are_an_address() {
        for bad in ["", "02", "02:00:00:00:07", "02:00:00:00:07:f7:00", "2:0:0:0:7:f7", "02-00-00-00-07-f7"] {
            assert_eq!(bad.parse::<MacAddr>(), Err(MacAddrError), "{bad}");
        }
        for bad in ["+2:00:00:00:07:f7", "02:00:00:00:07:fg", " 02:00:00:00:07:f7", "02:00:00:00:07:f7 "] {
            assert_eq!(bad.parse::<MacAddr>(), Err(MacAddrError), "{bad}");
        }
    }

    #[test]
    fn upper_case_reads_and_lower_case_is_written() {
        let mac: MacAddr = "02:00:00:00:07:F7".parse().expect("a good address");
        assert_eq!(mac.octets(), [2, 0, 0, 0, 7, 0xf7]);
        assert_eq!(serde_json::to_string(&mac).expect("text"), "\"02:00:00:00:07:f7\"");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(octets: [u8; 6]) {
            let mac = MacAddr::new(octets);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        }
    }
}
