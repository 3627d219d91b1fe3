//! A frame in memory.

use std::vec::Vec;

use zerocopy::IntoBytes as _;

use crate::{
    checksum::Sum,
    pipeline::{EditFailed, IcmpErrorHeaders, Packet, mend_in_place},
    wire::{Be16, Ethernet, Header, Ipv4, Outer},
};

/// A frame in a buffer that is aligned as packets are in the kernel.
#[derive(Clone, Debug)]
pub struct FramePacket {
    /// Two bytes each, so that headers at even offsets are aligned.
    words: Vec<u16>,
    length: usize,
    ingress: u32,
    tagged: bool,
    gso_size: usize,
}

impl FramePacket {
    /// A copy of the frame, without VLAN tag beside the bytes, that came through no interface.
    pub fn new(frame: &[u8]) -> Self {
        let mut words = std::vec![0u16; frame.len().div_ceil(2)];
        for (to, from) in words.as_mut_bytes().iter_mut().zip(frame) {
            *to = *from;
        }
        Self { words, length: frame.len(), ingress: 0, tagged: false, gso_size: 0 }
    }

    /// The interface that it came through.
    pub const fn set_ingress(&mut self, ifindex: u32) {
        self.ingress = ifindex;
    }

    /// Whether the frame carries a VLAN tag beside the bytes.
    pub const fn set_tagged(&mut self, tagged: bool) {
        self.tagged = tagged;
    }

    /// Payload bytes of each packet that the frame is to be cut into when it leaves; 0: it is not.
    pub const fn set_gso_size(&mut self, bytes: usize) {
        self.gso_size = bytes;
    }

    /// Other bytes for the same frame.
    fn replace(&mut self, frame: &[u8]) {
        let Self { ingress, tagged, gso_size, .. } = *self;
        *self = Self { ingress, tagged, gso_size, ..Self::new(frame) };
    }

    /// The frame.
    pub fn into_bytes(self) -> Vec<u8> {
        self.words.as_bytes().iter().copied().take(self.length).collect()
    }
}

impl Packet for FramePacket {
    fn length(&self) -> usize {
        self.length
    }

    fn near(&self) -> usize {
        self.length
    }

    fn gso_size(&self) -> usize {
        self.gso_size
    }

    fn ingress(&self) -> u32 {
        self.ingress
    }

    fn is_tagged(&self) -> bool {
        self.tagged
    }

    fn header<H: Header>(&mut self, offset: usize) -> Option<&mut H> {
        let end = offset.checked_add(H::LEN).filter(|end| *end <= self.length)?;
        H::mut_from_bytes(self.words.as_mut_bytes().get_mut(offset..end)?).ok()
    }

    fn pull(&mut self, end: usize) -> Result<(), EditFailed> {
        if end <= self.length { Ok(()) } else { Err(EditFailed) }
    }

    fn quote(&mut self, end: usize, headers: &IcmpErrorHeaders) -> Result<(), EditFailed> {
        let quoted = self.words.as_bytes().get(Ethernet::LEN..end).ok_or(EditFailed)?;
        let frame = [headers.as_bytes(), quoted].concat();
        self.gso_size = 0;
        self.replace(&frame);
        Ok(())
    }

    fn trim(&mut self, end: usize) -> Result<(), EditFailed> {
        let frame = self.words.as_bytes().get(..end).ok_or(EditFailed)?.to_vec();
        self.replace(&frame);
        Ok(())
    }

    fn encapsulate(&mut self, outer: &Outer) -> Result<(), EditFailed> {
        let frame = self.words.as_bytes().get(..self.length).ok_or(EditFailed)?;
        self.replace(&[outer.as_bytes(), frame].concat());
        Ok(())
    }

    fn decapsulate(&mut self) -> Result<(), EditFailed> {
        let frame = self.words.as_bytes().get(Outer::LEN..self.length).ok_or(EditFailed)?.to_vec();
        self.replace(&frame);
        Ok(())
    }

    fn sum<const N: usize>(&mut self, offset: usize) -> Option<Sum> {
        let bytes: &[u8; N] = self.header(offset)?;
        let (words, _) = bytes.as_chunks::<2>();
        Some(
            words.iter().fold(Sum::default(), |sum, word| sum.add(Be16::from_raw(u16::from_ne_bytes(*word)))),
        )
    }

    fn mend_transport_checksum(
        &mut self,
        offset: usize,
        optional: bool,
        from: Ipv4,
        to: Ipv4,
    ) -> Result<(), EditFailed> {
        mend_in_place(self, offset, optional, from, to)
    }
}
