//! Messages of the generic netlink family `netdev` (kernel 6.3, Documentation/netlink/specs/netdev.yaml): the part that
//! tells an interface's XDP features.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext as _, Nla, NlaBuffer, NlasIterator, Parseable,
    ParseableParametrized, emit_u32, emit_u64, parse_u32, parse_u64,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

/// `NETDEV_CMD_DEV_GET`; the answer bears the same number.
const DEV_GET: u8 = 1;

/// `NETDEV_FAMILY_VERSION`.
const VERSION: u8 = 1;

/// `NETDEV_A_DEV_IFINDEX`.
const IFINDEX: u16 = 1;

/// `NETDEV_A_DEV_XDP_FEATURES`.
const XDP_FEATURES: u16 = 3;

/// An attribute of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NetdevAttribute {
    /// The interface's number.
    Ifindex(u32),
    /// Bits of `enum netdev_xdp_act`.
    XdpFeatures(u64),
    /// Not looked at.
    Other(DefaultNla),
}

impl Nla for NetdevAttribute {
    fn value_len(&self) -> usize {
        match self {
            Self::Ifindex(_) => size_of::<u32>(),
            Self::XdpFeatures(_) => size_of::<u64>(),
            Self::Other(other) => other.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Ifindex(_) => IFINDEX,
            Self::XdpFeatures(_) => XDP_FEATURES,
            Self::Other(other) => other.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        let emitted = match self {
            Self::Ifindex(value) => emit_u32(buffer, *value),
            Self::XdpFeatures(value) => emit_u64(buffer, *value),
            Self::Other(other) => {
                other.emit_value(buffer);
                Ok(())
            }
        };
        debug_assert!(emitted.is_ok(), "the caller gives value_len() bytes");
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> Parseable<NlaBuffer<&'a T>> for NetdevAttribute {
    fn parse(buffer: &NlaBuffer<&'a T>) -> Result<Self, DecodeError> {
        Ok(match buffer.kind() {
            IFINDEX => Self::Ifindex(parse_u32(buffer.value()).context("ifindex of a device")?),
            XDP_FEATURES => Self::XdpFeatures(parse_u64(buffer.value()).context("XDP features of a device")?),
            _ => Self::Other(DefaultNla::parse(buffer)?),
        })
    }
}

/// A message about a device, or a request for one or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetdevMessage {
    command: u8,
    attributes: Vec<NetdevAttribute>,
}

impl NetdevMessage {
    /// Asks for one device.
    pub(super) fn get(ifindex: u32) -> Self {
        Self { command: DEV_GET, attributes: vec![NetdevAttribute::Ifindex(ifindex)] }
    }

    /// Asks for all devices of the namespace.
    pub(super) fn get_all() -> Self {
        Self { command: DEV_GET, attributes: Vec::new() }
    }

    /// The device's number.
    pub(super) fn ifindex(&self) -> Option<u32> {
        self.attributes.iter().find_map(|attribute| match attribute {
            NetdevAttribute::Ifindex(ifindex) => Some(*ifindex),
            _ => None,
        })
    }

    /// The device's XDP features.
    pub(super) fn xdp_features(&self) -> Option<u64> {
        self.attributes.iter().find_map(|attribute| match attribute {
            NetdevAttribute::XdpFeatures(features) => Some(*features),
            _ => None,
        })
    }
}

impl GenlFamily for NetdevMessage {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        VERSION
    }
}

impl Emitable for NetdevMessage {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for NetdevMessage {
    fn parse_with_param(buffer: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = NlasIterator::new(buffer)
            .map(|attribute| attribute.and_then(|attribute| NetdevAttribute::parse(&attribute)))
            .collect::<Result<Vec<_>, _>>()
            .context("attributes of a device")?;
        Ok(Self { command: header.cmd, attributes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kernel 6.18 answered for a veth of ifindex 3 that takes no redirected frames, with attributes added since 6.3.
    #[cfg(target_endian = "little")]
    const ANSWER: [u8; 44] = [
        0x08, 0x00, 0x01, 0x00, 0x03, 0x00, 0x00, 0x00, // ifindex
        0x0c, 0x00, 0x03, 0x00, 0x23, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // XDP features
        0x0c, 0x00, 0x05, 0x00, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // receive metadata
        0x0c, 0x00, 0x06, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // AF_XDP features
    ];

    #[test]
    #[cfg(target_endian = "little")]
    fn an_answer_with_attributes_of_later_kernels_is_understood() {
        let header = GenlHeader { cmd: DEV_GET, version: VERSION };
        let message = NetdevMessage::parse_with_param(&ANSWER, header).expect("well-formed");
        assert_eq!(message.ifindex(), Some(3));
        assert_eq!(message.xdp_features(), Some(0x23));
        let mut emitted = vec![0; message.buffer_len()];
        message.emit(&mut emitted);
        assert_eq!(emitted, ANSWER);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_truncated_answer_is_refused() {
        let header = GenlHeader { cmd: DEV_GET, version: VERSION };
        for len in [1, 7, 19, 43] {
            let truncated = ANSWER.get(..len).expect("shorter than the answer");
            assert!(NetdevMessage::parse_with_param(truncated, header).is_err(), "{len} bytes");
        }
    }
}
