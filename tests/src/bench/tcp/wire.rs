//! The cable between the client and the hypervisor, with somebody on it who makes it a wire.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{DevMap, MapData},
    programs::{Xdp, XdpMode, xdp::XdpLink},
};

use crate::{Lab, Netns};

/// Interface indexes of the ends in the middle.
const NEAR: u32 = 10;
const FAR: u32 = 11;

/// `eth0` of a client, and `eth0` of a host, connected by a bridge.
///
/// Frames that XDP or GRO are to find as on a NIC must come in buffers like a NIC's. Those of a plain veth are the sender's own,
/// which XDP copies, and no NIC's driver would.
pub(super) struct Wire {
    /// Carries the client's frames, while it is a wire.
    link: Option<XdpLink>,
    ebpf: Ebpf,
    /// Keeps the far end where the program finds it.
    _far: DevMap<MapData>,
    netns: Netns,
}

impl Wire {
    /// Connects two namespaces. `object` is the wire's program.
    pub(super) fn connect(
        lab: &Lab,
        label: &str,
        object: &[u8],
        client: &Netns,
        host: &Netns,
    ) -> Result<Self> {
        let netns = lab.add_netns(&format!("{label}-wire"))?;
        for namespace in [&netns, client, host] {
            // An interface that comes up would speak IPv6 by itself.
            namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        netns.ip("link add br0 type bridge stp_state 0 forward_delay 0")?;
        netns.ip("link set br0 up")?;
        for (name, index, other) in [("near", NEAR, client), ("far", FAR, host)] {
            netns.ip(&format!(
                "link add name {name} index {index} master br0 type veth peer name eth0 netns {}",
                other.name()
            ))?;
            netns.ip(&format!("link set {name} up"))?;
            other.ip("link set eth0 up")?;
        }
        let (ebpf, far) = netns.exec(|| {
            let mut ebpf = Ebpf::load(object).context("the kernel refuses the wire's program")?;
            let mut far: DevMap<_> = ebpf.take_map("FAR").context("no map FAR")?.try_into()?;
            far.set(0, FAR, None, 0)?;
            program(&mut ebpf)?.load().context("the verifier refuses the wire's program")?;
            Ok((ebpf, far))
        })?;
        Ok(Self { link: None, ebpf, _far: far, netns })
    }

    /// From now on the client's frames reach the host as from a NIC. They must be those of a wire, and the host's end must
    /// have GRO on or XDP.
    pub(super) fn become_wire(&mut self) -> Result<()> {
        if self.link.is_some() {
            return Ok(());
        }
        let ebpf = &mut self.ebpf;
        let link = self.netns.exec(|| {
            let program = program(ebpf)?;
            let link = program
                .attach_to_if_index(NEAR, XdpMode::Driver)
                .context("the wire's program is not attached")?;
            Ok(program.take_link(link)?)
        })?;
        self.link = Some(link);
        Ok(())
    }

    /// From now on the client's frames are bridged, however large they are.
    pub(super) fn become_bridge(&mut self) {
        self.link = None;
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    Ok(ebpf.program_mut("carry").context("no program carry")?.try_into()?)
}
