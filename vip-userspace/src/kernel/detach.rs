//! Taking everything away again, with or without vipd.

use std::{
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use vip_common::{
    tables::{LAYOUT_VERSION, Members, OwnerWord, PortEntry, PortFlags},
    wire::{Ipv4, Mac},
};

use super::{KernelError, PinDir, Tables, clsact, dataplane::pinned_config};
use crate::{
    net::{NetError, Netlink, PacketSocket, reply},
    plan::interface_of,
};

/// How long a running vipd may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two looks whether it has ended.
const STEP: Duration = Duration::from_millis(20);

/// What [`detach`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetachReport {
    /// The vipd that was ended.
    pub ended: Option<u32>,
    /// Links removed: programs detached.
    pub links: usize,
    /// Tables removed.
    pub tables: usize,
    /// What guests were told.
    pub told: Told,
}

/// What guests were told about the real MACs behind the constant ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Ports that were told.
    pub ports: usize,
    /// ARP replies sent, one for each port and VIP of its subnet that has an owner.
    pub replies: usize,
    /// Ports whose gateway was the forwarder itself: no real MAC stands behind that one, and they cannot be told anything.
    pub gateways: usize,
    /// Why some or all could not be told.
    pub failures: Vec<String>,
}

/// Detaches every program that the pins in a directory hold, and removes the tables and the directory.
///
/// A vipd that serves the directory is ended first (SIGTERM). While everything still forwards, each port on this host is told
/// by unicast ARP who really owns the VIPs of its subnet; telling is best effort, removing is not. Tables of any layout are
/// removed, but only those of this version can be read for telling. [`KernelError::NothingPinned`] if the directory does
/// not exist.
pub fn detach(pin_dir: &Path) -> Result<DetachReport, KernelError> {
    let (pins, ended) = take_over(pin_dir)?;
    let tables = readable_tables(&pins);
    let mut told = match &tables {
        Ok(tables) => tell(tables),
        Err(reason) => Told { failures: vec![reason.clone()], ..Told::default() },
    };
    if let Ok(tables) = &tables {
        told.failures.extend(forget_on_bridges(tables).err());
    }
    let filters = clsact::detach_all(&pins)?;
    let (links, tables) = pins.remove()?;
    Ok(DetachReport { ended, links: links + filters, tables, told })
}

/// Takes the lock, from a running vipd if need be; returns the pid of the vipd that was ended.
fn take_over(pin_dir: &Path) -> Result<(PinDir, Option<u32>), KernelError> {
    let holder = match PinDir::lock(pin_dir) {
        Err(KernelError::Locked { holder, .. }) => holder,
        result => return Ok((result?, None)),
    };
    // Only the process that holds the lock *and* says in CONFIG that it serves the tables is a vipd to be ended: it may also
    // be another `vipctl detach`, and a number from CONFIG alone may belong to anybody by now.
    let agent = pinned_config(pin_dir).ok().map(|config| config.agent_pid);
    let pid = match holder {
        Some(pid) if Some(pid) == agent => pid,
        holder => return Err(KernelError::NotAgent { path: pin_dir.to_owned(), holder }),
    };
    let target = Pid::from_raw(
        i32::try_from(pid).map_err(|_| KernelError::NotAgent { path: pin_dir.to_owned(), holder })?,
    );
    match kill(target, Signal::SIGTERM) {
        // It has ended by itself.
        Ok(()) | Err(nix::Error::ESRCH) => {}
        Err(errno) => return Err(KernelError::Signal { pid, source: errno.into() }),
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match PinDir::lock(pin_dir) {
            Err(KernelError::Locked { .. }) if Instant::now() < deadline => thread::sleep(STEP),
            Err(KernelError::Locked { .. }) => {
                return Err(KernelError::StillRunning { pid, seconds: PATIENCE.as_secs() });
            }
            result => return Ok((result?, Some(pid))),
        }
    }
}

/// The pinned tables, or why they cannot be read.
fn readable_tables(pins: &PinDir) -> Result<Tables, String> {
    let layout = pinned_config(pins.path()).map_err(|error| error.with_causes())?.layout;
    if layout != LAYOUT_VERSION {
        return Err(format!("the tables have layout version {layout}, this version reads {LAYOUT_VERSION}"));
    }
    Tables::open(pins.path()).map_err(|error| error.with_causes())
}

/// Deletes the static entries for ports' MACs that vipd made on Linux bridges; in words, what failed.
fn forget_on_bridges(tables: &Tables) -> Result<(), String> {
    let ports = tables.ports.present().filter_map(|index| tables.ports.get(index).ok());
    let bridged: Vec<PortEntry> =
        ports.filter(|port| interface_of(port).is_some() && port.flags.has(PortFlags::BRIDGED)).collect();
    if bridged.is_empty() {
        return Ok(());
    }
    let forget = async {
        let netlink = Netlink::open()?;
        for port in bridged {
            netlink.fdb_delete(port.ifindex, port.mac.octets()).await?;
        }
        Ok::<(), NetError>(())
    };
    // A thread of its own, because the caller may be inside a runtime, which must not be blocked.
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(forget).map_err(|error| error.to_string())
        });
        done.join().unwrap_or_else(|_| Err("the thread that talks to the bridges panicked".to_owned()))
    })
}

/// A VIP and who owns it.
struct Owned {
    members: Members,
    owner: u32,
    mac: Mac,
}

/// Tells each port on this host, by unicast ARP, the real MACs of the owners of its subnet's VIPs.
fn tell(tables: &Tables) -> Told {
    let mut told = Told::default();
    let owned: Vec<_> = tables.vips.present().filter_map(|slot| owned(tables, slot)).collect();
    for index in tables.ports.present() {
        let port = match tables.ports.get(index) {
            Ok(port) if port.vni != 0 && interface_of(&port).is_some() => port,
            Ok(_) => continue,
            Err(error) => {
                told.failures.push(error.with_causes());
                continue;
            }
        };
        if !port.flags.has(PortFlags::EXTERNAL_ROUTER) {
            told.gateways += 1;
        }
        let news: Vec<_> = owned
            .iter()
            .filter(|vip| (vip.members.vni, vip.members.subnet) == (port.vni, port.subnet))
            // A guest that hears of its own address from outside would think it taken by another (RFC 5227 §2.4).
            .filter(|vip| vip.owner != index)
            .collect();
        if news.is_empty() {
            continue;
        }
        match tell_port(&port, &news) {
            Ok(()) => {
                told.ports += 1;
                told.replies += news.len();
            }
            Err(error) => told.failures.push(error.with_causes()),
        }
    }
    told
}

fn owned(tables: &Tables, slot: u32) -> Option<Owned> {
    let members = tables.members.get(slot).ok()?;
    let word: OwnerWord = tables.vips.load(slot).ok()?.word;
    if members.vni == 0 || word.port() == 0 {
        return None;
    }
    let mac = match word.vrid() {
        0 => tables.ports.get(word.port()).ok()?.mac,
        vrid => Mac::of_vrid(vrid),
    };
    Some(Owned { members, owner: word.port(), mac })
}

fn tell_port(port: &PortEntry, news: &[&Owned]) -> Result<(), KernelError> {
    let socket = PacketSocket::open(port.ifindex)?;
    let guest = port.mac.octets();
    for vip in news {
        let mac = vip.mac.octets();
        let address = |address: Ipv4| Ipv4Addr::from(address);
        socket.send(&reply(mac, guest, mac, address(vip.members.address), guest, address(port.address)))?;
    }
    Ok(())
}
