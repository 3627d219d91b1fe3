//! Hypervisor hosts.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::{EipReach, Guest, GuestConfig, Mac, Netns, Outside, lab::Shared, outside::mac_of};

/// Where the machine's bpffs is mounted.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// The name of the host's uplink.
pub(crate) const UPLINK: &str = "eth0";

/// A hypervisor: a namespace with an uplink `eth0` (once [`Host::add_outside`] has made it), the guests' `tap0`,
/// `tap1`, … and a directory of its own for pins. Clones are the same host.
#[derive(Clone, Debug)]
pub struct Host {
    netns: Netns,
    pins: PathBuf,
}

impl Host {
    pub(crate) fn create(lab: &Arc<Shared>, name: &str) -> Result<Self> {
        mount_bpffs()?;
        let netns = Netns::create(lab, name)?;
        let pins = Path::new(BPFFS).join(netns.name());
        fs::create_dir(&pins).with_context(|| format!("cannot make the pin directory {}", pins.display()))?;
        Ok(Self { netns, pins })
    }

    /// The host's namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A directory on bpffs that is this host's alone; it and the pins in it go with the lab.
    pub fn pin_directory(&self) -> &Path {
        &self.pins
    }

    /// Connects an outside client with the uplink, see [`Outside`]. A host has one.
    pub fn add_outside(&self, reach: EipReach) -> Result<Outside> {
        Outside::create(self, reach)
    }

    /// The same by the network cards of the machine that `cargo xtask vm` runs tests in ([`crate::virtio`]): the uplink is
    /// a real device with several queues.
    pub fn add_outside_on_cards(&self, reach: EipReach) -> Result<Outside> {
        Outside::create_on_cards(self, reach)
    }

    /// The MAC of the uplink, which exists once there is an outside.
    pub fn uplink_mac(&self) -> Result<Mac> {
        mac_of(&self.netns, UPLINK)
    }

    /// Starts a guest: its namespace and the cable to this host.
    pub fn add_guest(&self, config: &GuestConfig) -> Result<Guest> {
        Guest::create(self, config)
    }

    /// A plain Linux bridge, up, without spanning tree, with an address when the host takes part.
    pub fn add_bridge(&self, name: &str, address: Option<Ipv4Network>) -> Result<()> {
        self.netns.ip(&format!("link add name {name} type bridge stp_state 0 forward_delay 0"))?;
        if let Some(address) = address {
            self.netns.ip(&format!("address add {address} dev {name}"))?;
        }
        self.netns.ip(&format!("link set dev {name} up"))?;
        Ok(())
    }

    /// Makes an interface, e.g. a guest's `tap0`, a port of a bridge.
    pub fn enslave(&self, interface: &str, bridge: &str) -> Result<()> {
        self.netns.ip(&format!("link set dev {interface} master {bridge}"))?;
        Ok(())
    }

    /// Lets the host's kernel route IPv4 packets, as a plain router does.
    pub fn enable_forwarding(&self) -> Result<()> {
        self.netns.sysctl("net/ipv4/ip_forward", "1")
    }
}

/// Mounts bpffs where the machine has none: pins must outlive the process that makes them, and no other file system
/// takes them.
fn mount_bpffs() -> Result<()> {
    let found = statfs(BPFFS).with_context(|| format!("cannot look at {BPFFS}: has this kernel no BPF?"))?;
    if found.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount bpffs at {BPFFS}"))
}
