//! VLANs of EIP networks and of ports: which tags their frames have on the wire.

use std::{fmt, num::NonZeroU16};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
    ser::SerializeSeq as _,
};

/// The highest number of a VLAN (IEEE 802.1Q §9.6: 0 tags a priority only, 4095 is reserved).
pub const MAX_VLAN: u16 = 4094;

/// One tag (IEEE 802.1Q), or a provider's tag (IEEE 802.1ad) with one inside it (QinQ). 4 bytes, in an `Option` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vlan {
    /// 0: there is none.
    outer: u16,
    inner: NonZeroU16,
}

impl Vlan {
    /// One tag; `None` if the number is not 1 to [`MAX_VLAN`].
    pub fn tag(number: u64) -> Option<Self> {
        Some(Self { outer: 0, inner: judge(number)? })
    }

    /// A tag inside a provider's; `None` if a number is not 1 to [`MAX_VLAN`].
    pub fn stacked(outer: u64, inner: u64) -> Option<Self> {
        Some(Self { outer: judge(outer)?.get(), inner: judge(inner)? })
    }

    /// The provider's tag, if there is one.
    pub fn outer(self) -> Option<u16> {
        (self.outer != 0).then_some(self.outer)
    }

    /// The tag that stands next to what the frame carries.
    pub fn inner(self) -> u16 {
        self.inner.get()
    }

    /// The VLAN that is written so, or what is wrong with it and what to do.
    pub(crate) fn read(tags: &Tags) -> Result<Self, (String, String)> {
        let (read, written) = match tags {
            Tags::One(number) => (Self::tag(*number), number.to_string()),
            Tags::List(numbers) => {
                let &[outer, inner] = numbers.as_slice() else {
                    let what = format!("a list of {} numbers is not a VLAN", numbers.len());
                    return Err((what, "write one number, or two as [outer, inner]".to_owned()));
                };
                (Self::stacked(outer, inner), format!("[{outer}, {inner}]"))
            }
        };
        read.ok_or_else(|| (format!("{written} is not a VLAN"), format!("use numbers from 1 to {MAX_VLAN}")))
    }

    /// Commands that make its VLAN interface on another interface, for people.
    pub fn commands(self, on: &str) -> String {
        let make = |on: &str, name: &str, protocol: &str, id: u16| {
            format!("ip link add link {on} name {name} type vlan {protocol}id {id} && ip link set {name} up")
        };
        match self.outer() {
            None => make(on, &self.interface_name(on), "", self.inner()),
            Some(outer) => {
                let between = Self { outer: 0, inner: NonZeroU16::new(outer).unwrap_or(self.inner) };
                let between = between.interface_name(on);
                let first = make(on, &between, "proto 802.1ad ", outer);
                format!("{first} && {}", make(&between, &self.interface_name(on), "", self.inner()))
            }
        }
    }

    /// The usual name of its VLAN interface, short enough for the kernel.
    fn interface_name(self, on: &str) -> String {
        /// `IFNAMSIZ` less its final zero (linux/if.h).
        const LONGEST: usize = 15;
        let tags = match self.outer() {
            None => self.inner().to_string(),
            Some(outer) => format!("{outer}.{}", self.inner()),
        };
        let usual = format!("{on}.{tags}");
        if usual.len() <= LONGEST { usual } else { format!("vlan{tags}") }
    }
}

fn judge(number: u64) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(number).ok().filter(|number| *number <= MAX_VLAN)?)
}

/// As it is written: `100`, or `[200, 100]`.
impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outer() {
            None => write!(f, "{}", self.inner),
            Some(outer) => write!(f, "[{outer}, {}]", self.inner),
        }
    }
}

impl Serialize for Vlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(outer) = self.outer() else { return serializer.serialize_u16(self.inner()) };
        let mut list = serializer.serialize_seq(Some(2))?;
        list.serialize_element(&outer)?;
        list.serialize_element(&self.inner())?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Vlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&Tags::deserialize(deserializer)?).map_err(|(what, _)| de::Error::custom(what))
    }
}

/// A VLAN as it is written, not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// A number.
    One(u64),
    /// A list of numbers, the outermost first.
    List(Vec<u64>),
}

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of a VLAN, or [outer, inner]")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Tags, E> {
                Ok(Tags::One(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Tags, E> {
                u64::try_from(number)
                    .map(Tags::One)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tags, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = list.next_element()? {
                    numbers.push(number);
                }
                Ok(Tags::List(numbers))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_from_1_to_4094_are_vlans_alone_and_two_by_two() {
        for (number, is_vlan) in [(0, false), (1, true), (4094, true), (4095, false), (65_537, false)] {
            assert_eq!(Vlan::tag(number).is_some(), is_vlan, "{number}");
            assert_eq!(Vlan::stacked(number, 7).is_some(), is_vlan, "{number}");
            assert_eq!(Vlan::stacked(7, number).is_some(), is_vlan, "{number}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for (vlan, json) in [(Vlan::tag(100), "100"), (Vlan::stacked(200, 7), "[200,7]")] {
            let vlan = vlan.expect("a VLAN");
            assert_eq!(serde_json::to_string(&vlan).expect("text"), json);
            assert_eq!(serde_json::from_str::<Vlan>(json).expect("a VLAN"), vlan);
            assert_eq!(vlan.to_string().replace(' ', ""), json);
        }
        for bad in ["0", "-1", "[7]", "[1,2,3]", "[]", "\"7\"", "true", "7.5", "[0,1]"] {
            serde_json::from_str::<Vlan>(bad).expect_err(bad);
        }
    }

    #[test]
    fn it_takes_no_room_of_its_own_in_an_option() {
        assert_eq!(size_of::<Option<Vlan>>(), 4);
    }

    #[test]
    fn the_commands_make_one_interface_or_one_on_another() {
        assert_eq!(
            Vlan::tag(100).expect("a VLAN").commands("eth0"),
            "ip link add link eth0 name eth0.100 type vlan id 100 && ip link set eth0.100 up"
        );
        assert_eq!(
            Vlan::stacked(200, 7).expect("a VLAN").commands("eth0"),
            "ip link add link eth0 name eth0.200 type vlan proto 802.1ad id 200 && ip link set eth0.200 up \
             && ip link add link eth0.200 name eth0.200.7 type vlan id 7 && ip link set eth0.200.7 up"
        );
        let long = Vlan::stacked(4000, 4001).expect("a VLAN").commands("enp129s0f1np1");
        assert!(long.contains("name vlan4000 ") && long.contains("name vlan4000.4001 "), "{long}");
    }
}
