//! Why a packet stopped: one closed list, from which counters, names and documentation are made.

/// Declares the list. A number is never reused and never changed: counters of pinned maps outlive a program.
macro_rules! drop_reasons {
    ($($number:literal $variant:ident $name:literal $text:literal)*) => {
        /// Why a packet was dropped. The number is its index in the table of counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum DropReason {
            $(#[doc = $text] $variant = $number,)*
        }

        impl DropReason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in `vipctl status` and in metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// One sentence for the operator.
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

drop_reasons! {
    0 FrameTruncated "frame_truncated" "The frame ends before the headers that it announces."
    1 Ipv4Malformed "ipv4_malformed" "The IPv4 header has an impossible version, header length or total length."
    2 ArpMalformed "arp_malformed" "The ARP packet is not IPv4 over Ethernet, or its sender is a group address."
    3 SourceMac "source_mac" "A port sent from a MAC that is neither its own nor a virtual router MAC that it may use."
    4 SourceAddress "source_address" "A port sent from an address that is not its own; its source/destination check is on."
    5 ArpSenderMac "arp_sender_mac" "The sender MAC inside an ARP packet is not the port's, or is a virtual router MAC in a reply for the fixed address to another host."
    6 ArpGateway "arp_gateway" "A port said in ARP that it is the gateway."
    7 ArpFixedAddress "arp_fixed_address" "A port said in ARP that it is another port's fixed address."
    8 ArpForeignSender "arp_foreign_sender" "A port said in ARP that it is an address that is not its own; a port whose check is off, to another host."
    9 ClaimNotMember "claim_not_member" "A port without the right to own a VIP said in ARP that it is the VIP."
    10 ArpNotOwner "arp_not_owner" "A member that does not own the VIP answered for it, or asked an unlisted neighbour as the VIP."
    11 ProbeNotMember "probe_not_member" "A port without the right to own a VIP probed for it."
    12 DhcpServer "dhcp_server" "A port with its source/destination check on answered as a DHCP server."
    13 VrrpTtl "vrrp_ttl" "A VRRP advertisement with a TTL other than 255."
    14 VrrpNotMember "vrrp_not_member" "A VRRP advertisement for a VIP from a port without the right to own it, or not from that port's fixed address."
    15 OwnerLoop "owner_loop" "The owner of a VIP sent to the VIP itself."
    16 DestinationNotOwn "destination_not_own" "A packet for a port whose check is on, to an address that is not the port's."
    17 Unowned "unowned" "A packet to a VIP that nobody owns."
    18 NoSuchAddress "no_such_address" "A routed packet to an address of the VPC that nobody has."
    19 NoRoute "no_route" "A routed packet that leaves the VPC from an address without EIP."
    20 TtlExpired "ttl_expired" "A packet to be routed with a TTL of 1 or less."
    21 IcmpError "icmp_error" "An ICMP error that cannot be translated: it is a fragment, or its quote is too short, is of another ICMP error, or not of a packet of the addresses that it is from and for, or it tells of an MTU below 68."
    22 IcmpRedirect "icmp_redirect" "An ICMP redirect: never translated."
    23 TinyFragment "tiny_fragment" "A first fragment too short for its transport header (RFC 1858, RFC 3128), or one of ICMP that begins before the end of what an error quotes."
    24 Hairpin "hairpin" "A packet to an EIP from an address without EIP: an answer would find no way back."
    25 HostAddress "host_address" "A guest's packet to an address of this host."
    26 NoInterface "no_interface" "The receiving port has no interface on this host at the moment."
    27 Reflected "reflected" "A packet whose receiver is its sender's own port."
    28 GatewayService "gateway_service" "A packet to the gateway's own address other than an echo request."
    29 RedirectFailed "redirect_failed" "The kernel refused to take the packet for its interface."
    30 EditFailed "edit_failed" "The kernel refused to change the packet."
    31 NoNextHop "no_next_hop" "No route of this host's, through the uplink, leads to the packet's destination."
    32 TableInconsistent "table_inconsistent" "A table entry names another one that is not there: the agent is at work on them."
    33 NestedTag "nested_tag" "A VLAN tag inside a priority tag, or inside two others on a host with a VTEP: what it carries could not be checked."
    34 IcmpChecksum "icmp_checksum" "An ICMP error whose checksum is wrong (RFC 5508 section 4.2)."
    35 TooBig "too_big" "A packet longer than the MTU of the interface that it is for, which may not be cut or cannot be."
    36 VrrpRouted "vrrp_routed" "A VRRP packet that would have to be routed: it never leaves its link (RFC 9568 section 5.1.1.3)."
    37 MartianSource "martian_source" "A packet to an EIP from an address that nobody has: of 0.0.0.0/8, 127.0.0.0/8, a group or 240.0.0.0/4 (RFC 1812 section 5.3.7)."
    38 VtepUnknown "vtep_unknown" "VXLAN of a VPC from an address that is no host's VTEP."
    39 VtepNotOurs "vtep_not_ours" "VXLAN of a VPC that is not addressed to this host's VTEP, or came in by the VLAN of an EIP network, where no host has one."
    40 VxlanMalformed "vxlan_malformed" "VXLAN whose outer headers contradict each other, are of a fragment or end too early, or whose frame does."
    41 VtepAddress "vtep_address" "A port sent to, or from, the VTEP address of a host: guests never reach the underlay."
    42 OverlayClaim "overlay_claim" "ARP inside VXLAN that says who has an address, from another MAC than the tables know, or to everybody: claims count on the claimant's own host only."
    43 OverlayGroup "overlay_group" "A frame to a group inside VXLAN, other than VRRP between a VIP's members, ARP questions and probes."
    44 OverlayType "overlay_type" "A frame inside VXLAN that is neither IPv4 nor ARP."
    45 ForwardedTwice "forwarded_twice" "A frame inside VXLAN that was forwarded by a previous owner's host already, and whose receiver is not on this host either, or that would have to be routed."
    46 NoWayToHost "no_way_to_host" "No route of this host's, through the uplink, leads to the VTEP of the receiver's host, or the MAC of the neighbour on that way is not known yet."
    47 BackToSender "back_to_sender" "A frame inside VXLAN for a port of the host that it comes from: the bridge of a host without forwarder had forgotten where that is, and asked all."
}

impl DropReason {
    /// Number of reasons: size of the table of counters.
    pub const COUNT: usize = Self::ALL.len();

    /// Index in the table of counters.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }
}
