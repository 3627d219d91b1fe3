//! Inputs: what a file of the corpus says.

use std::fmt;

use vip_lab::fixtures::{
    Program,
    world::{GUESTS, Guest},
};

use crate::Variation;

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// From outside.
    Uplink,
    /// From a guest of the world, by its number in [`GUESTS`]; the one behind the last has an interface that is in no table.
    Port(u8),
}

impl Entry {
    /// All places where frames come from.
    const COUNT: u8 = {
        assert!(GUESTS.len() < 200);
        #[expect(clippy::cast_possible_truncation, reason = "few guests")]
        let guests = GUESTS.len() as u8;
        guests + 2
    };

    /// The guest that sends.
    pub fn guest(self) -> Option<&'static Guest> {
        match self {
            Self::Uplink => None,
            Self::Port(number) => GUESTS.get(usize::from(number)),
        }
    }

    /// Index of the interface that the frame comes through.
    pub fn interface(self) -> u32 {
        /// An interface that is no port's.
        const STRANGE: u32 = 999;
        match self {
            Self::Uplink => vip_lab::fixtures::world::UPLINK,
            Self::Port(_) => self.guest().map_or(STRANGE, Guest::interface),
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Uplink => 0,
            Self::Port(number) => number + 1,
        }
    }

    const fn of_number(number: u8) -> Self {
        match number % Self::COUNT {
            0 => Self::Uplink,
            port => Self::Port(port - 1),
        }
    }
}

/// A fuzz target: which inputs it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// What reaches the uplink.
    Uplink,
    /// What guests send.
    Port,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Uplink, Self::Port];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uplink => "uplink",
            Self::Port => "port",
        }
    }

    /// Its program, as cargo names it.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Uplink => "fuzz-uplink",
            Self::Port => "fuzz-port",
        }
    }

    /// Whether it runs the input.
    pub fn takes(self, input: &Input) -> bool {
        self == input.target()
    }
}

/// A frame, where it comes from, and the world that it meets.
#[derive(Clone, PartialEq, Eq)]
pub struct Input {
    /// Where it comes from.
    pub entry: Entry,
    /// Whether it has a VLAN tag beside the bytes.
    pub tagged: bool,
    /// How the world differs from the fixtures'.
    pub variation: Variation,
    /// The frame.
    pub frame: Vec<u8>,
}

impl Input {
    /// Bytes before the frame: entry, tag, four of the variation with the lowest first.
    pub const HEADER: usize = 6;

    /// Reads an input; None: there is no whole header. Every other sequence of bytes is one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (&[entry, tagged, a, b, c, d], frame) = bytes.split_first_chunk::<{ Self::HEADER }>()?;
        Some(Self {
            entry: Entry::of_number(entry),
            tagged: tagged & 1 != 0,
            variation: Variation::of_bits(u32::from_le_bytes([a, b, c, d])),
            frame: frame.to_vec(),
        })
    }

    /// The bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![self.entry.number(), u8::from(self.tagged)];
        bytes.extend(self.variation.bits().to_le_bytes());
        bytes.extend(&self.frame);
        bytes
    }

    /// The input of a fixture, in the world without a variation.
    pub fn of_fixture(program: Program, frame: &[u8]) -> Self {
        let port = |interface| {
            let number = GUESTS.iter().position(|guest| guest.interface() == interface);
            Entry::Port(u8::try_from(number.unwrap_or(GUESTS.len())).unwrap_or(u8::MAX))
        };
        let (entry, tagged) = match program {
            Program::Uplink(_) | Program::Split => (Entry::Uplink, false),
            Program::Port(interface) => (port(interface), false),
            Program::TaggedPort(interface) => (port(interface), true),
        };
        Self { entry, tagged, variation: Variation::default(), frame: frame.to_vec() }
    }

    /// The target that runs it.
    pub const fn target(&self) -> Target {
        match self.entry {
            Entry::Uplink => Target::Uplink,
            Entry::Port(_) => Target::Port,
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.entry.guest().map_or("nobody's interface".to_owned(), |guest| format!("{guest:?}"));
        let from = if self.entry == Entry::Uplink { "the uplink".to_owned() } else { from };
        writeln!(f, "from {from}{}", if self.tagged { ", tagged" } else { "" })?;
        writeln!(f, "where {:?}", self.variation)?;
        write!(f, "{}", crate::frame::hex(&self.frame))
    }
}
