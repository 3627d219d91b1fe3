//! One change of the tables.

use vip_common::{
    tables::{EipNetwork, Grant, GrantKey, Members, PortEntry, SubnetEntry, Target},
    wire::Ipv4,
};

use super::contents::{AddressEntry, MacPlace, Place, Prefix};

/// One change of one table, or of an owner's word. Carrying it out twice is the same as once, but for [`Self::Rehome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The index loses an EIP.
    RemoveEip(Ipv4),
    /// The index loses an address, and its record the EIP.
    RemoveAddress(Place),
    /// MACS loses a MAC.
    RemoveMac(MacPlace),
    /// SUBNETS loses a prefix.
    RemoveSubnet(Prefix),
    /// VTEPS loses an address.
    RemoveVtep(Ipv4),
    /// VNIS loses a VPC.
    RemoveVni(u32),
    /// IFPORTS loses an interface, by ifindex.
    RemoveInterface(u32),
    /// A VIP's owner word and waiting claim: whatever names the port (any port if `None`) ends. The epoch grows.
    Release {
        /// The VIP's slot.
        slot: u32,
        /// Index of the port whose ownership ends; `None`: whoever owns it.
        port: Option<u32>,
    },
    /// A VIP's owner word: if it names the port, which has come from another host, the epoch grows and the owner stays. Twice, the epoch
    /// grows twice, which orders claims as well.
    Rehome {
        /// The VIP's slot.
        slot: u32,
        /// Index of the port.
        port: u32,
    },
    /// GRANTS loses a right.
    RemoveGrant(GrantKey),
    /// MOVES: the slot's remembered moves do not name the port any more, because its index may pass to another one.
    ForgetPort {
        /// The VIP's slot.
        slot: u32,
        /// Index of the port.
        port: u32,
    },
    /// MEMBERS and VIPS: the slot is empty.
    ClearMembers(u32),
    /// PORTS: the index is empty.
    ClearPort(u32),
    /// HOSTS: the index is empty.
    ClearHost(u32),
    /// PORT_DEVS loses a port, by index.
    RemovePortDev(u32),
    /// NETWORKS: the EIP network with this index.
    SetNetwork(u32, EipNetwork),
    /// A slot begins another life: nobody owns it, its counters and remembered moves are those of nobody.
    FreshSlot(u32),
    /// An EIP of this VIP or port begins its life: its counters are 0.
    FreshEip(Target),
    /// HOSTS: index, and VTEP that the headers lead to.
    SetHost(u32, Ipv4),
    /// PORT_DEVS: port index, ifindex.
    SetPortDev(u32, u32),
    /// PORTS: index and value.
    SetPort(u32, PortEntry),
    /// MEMBERS and VIPS: slot and value.
    SetMembers(u32, Members),
    /// GRANTS: key and value.
    SetGrant(GrantKey, Grant),
    /// The index, and the EIP in the record: key and value.
    SetAddress(Place, AddressEntry),
    /// MACS: key and port index.
    SetMac(MacPlace, u32),
    /// SUBNETS: key and value.
    SetSubnet(Prefix, SubnetEntry),
    /// VTEPS: key and host index.
    SetVtep(Ipv4, u32),
    /// VNIS: the VPC's VNI.
    SetVni(u32),
    /// The index: key and value.
    SetEip(Ipv4, Target),
    /// IFPORTS: ifindex and port index.
    SetInterface(u32, u32),
}

impl Step {
    /// Whether it is about owners, moves or counters alone: entries that the state does not decide about.
    pub fn is_about_owners(&self) -> bool {
        matches!(
            self,
            Self::Release { .. }
                | Self::Rehome { .. }
                | Self::ForgetPort { .. }
                | Self::FreshSlot(_)
                | Self::FreshEip(_)
        )
    }
}
