//! The status for people.

use std::{
    cmp::Reverse,
    fmt::{self, Write as _},
};

use super::{
    columns::optional,
    render::table,
    status::{
        Attachment, DeliveryPath, DropCount, EipNetworkStatus, LossSource, LossStatus, OverlayStatus,
        PeerStatus, PeerView, PeersStatus, PortStatus, RefusedCounts, StatusView, SyncState, SyncStatus,
        UnreachableHost, UplinkStatus, XdpView,
    },
};
use crate::config::UplinkPath;

/// Longest line of a list of names.
const LINE: usize = 100;

/// The status as text: what needs attention comes first, drops that happened before those that did not.
pub fn summary(status: &StatusView) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, status);
    text
}

fn write(text: &mut String, status: &StatusView) -> fmt::Result {
    let StatusView {
        host,
        pid,
        version,
        started_at,
        adopted,
        uplink,
        eip_networks,
        overlay,
        ports,
        drops,
        losses,
        sync,
        // For those who watch a large state; people see that it is in force.
        durations: _,
        tables,
        events_lost,
        icmp_errors_held_back,
        peers,
        warnings,
    } = status;
    let tables_from = if *adopted { "took over the pinned tables" } else { "made new tables" };
    writeln!(text, "host {host}: vipd {version}, process {pid}, since {started_at}, {tables_from}")?;
    write_sync(text, sync)?;
    write_uplink(text, uplink)?;
    write_vlans(text, eip_networks)?;
    if let Some(overlay) = overlay {
        write_overlay(text, overlay)?;
    }
    for warning in warnings {
        writeln!(text, "warning: {warning}")?;
    }
    writeln!(text)?;
    write_drops(text, drops)?;
    writeln!(text)?;
    write_losses(text, losses)?;
    writeln!(
        text,
        "events that did not reach vipd: {} changes of owner (read again from the tables), {} claims that waited or changed no owner, {} \
         refusals",
        events_lost.ownership, events_lost.waiting, events_lost.refusals
    )?;
    writeln!(text, "ICMP errors held back because too many were due: {icmp_errors_held_back}")?;
    writeln!(text)?;
    if sync.loaded_at.is_none() {
        writeln!(text, "ports are not known while no valid state has been read")?;
    } else {
        write_ports(text, ports)?;
    }
    writeln!(text)?;
    if let Some(peers) = peers.as_ref().filter(|peers| !peers.hosts.is_empty()) {
        write_peers(text, peers)?;
        writeln!(text)?;
    }
    let rows = tables.iter().map(|it| vec![it.table.clone(), it.used.to_string(), it.capacity.to_string()]);
    text.push_str(&table(&["TABLE", "USED", "CAPACITY"], rows));
    Ok(())
}

fn write_peers(text: &mut String, peers: &PeersStatus) -> fmt::Result {
    let PeersStatus { port, learning, hosts, waiting, unlisted } = peers;
    let rows = hosts.iter().map(|peer| {
        let PeerStatus { host, vtep, state, heard_ms_ago, unacked, applied, refused } = peer;
        let RefusedCounts { malformed, version, auth, identity, session, replay } = refused;
        let refused = [
            ("malformed", malformed),
            ("version", version),
            ("auth", auth),
            ("identity", identity),
            ("session", session),
            ("replay", replay),
        ];
        let refused = refused.iter().filter(|(_, count)| **count > 0);
        let refused: Vec<String> = refused.map(|(reason, count)| format!("{reason} {count}")).collect();
        vec![
            host.clone(),
            vtep.to_string(),
            match state {
                PeerView::Up => "up".to_owned(),
                PeerView::Connecting => "connecting".to_owned(),
                PeerView::Down => "DOWN".to_owned(),
            },
            optional(heard_ms_ago.map(|ago| format!("{ago} ms ago")).as_ref()),
            unacked.to_string(),
            applied.to_string(),
            if refused.is_empty() { "0".to_owned() } else { refused.join(", ") },
        ]
    });
    text.push_str(&table(&["PEER", "VTEP", "STATE", "HEARD", "UNACKED", "APPLIED", "REFUSED"], rows));
    write!(text, "peers tell each other by UDP port {port}")?;
    if *learning {
        write!(text, "; waits for what they know, until then owners are only those that claim")?;
    }
    if *waiting > 0 {
        write!(text, "; {waiting} words wait for a state that knows what they are about")?;
    }
    if *unlisted > 0 {
        write!(text, "; {unlisted} datagrams from addresses that are no host's")?;
    }
    writeln!(text)
}

fn write_sync(text: &mut String, sync: &SyncStatus) -> fmt::Result {
    let SyncStatus { state, file, loaded_at, error } = sync;
    let state = match state {
        SyncState::InSync => "in force",
        SyncState::Refused if loaded_at.is_none() => {
            "REFUSED, and no other one has been read; forwarding goes on by the pinned tables"
        }
        SyncState::Waiting if loaded_at.is_none() => {
            "waited for, and no other one has been read; forwarding goes on by the pinned tables"
        }
        SyncState::Refused => "REFUSED, the state before it stays in force",
        SyncState::Waiting => "in force in a moment",
        SyncState::Error => "in force, but NOT ALL OF IT",
    };
    write!(text, "state {}: {state}", file.display())?;
    if let Some(loaded_at) = loaded_at {
        write!(text, ", read at {loaded_at}")?;
    }
    writeln!(text)?;
    for line in error.iter().flat_map(|error| error.lines()) {
        writeln!(text, "  {line}")?;
    }
    Ok(())
}

fn write_uplink(text: &mut String, uplink: &UplinkStatus) -> fmt::Result {
    let UplinkStatus { name, ifindex, mac, mtu, xdp, path, link, routed_by } = uplink;
    write!(text, "uplink {name}: ")?;
    match (ifindex, mac, mtu) {
        (Some(ifindex), Some(mac), Some(mtu)) => write!(text, "ifindex {ifindex}, {mac}, MTU {mtu}, ")?,
        _ => write!(text, "NO SUCH INTERFACE at the moment, ")?,
    }
    match xdp {
        Some(XdpView::Native) => write!(text, "XDP native ({})", link.display())?,
        Some(XdpView::Generic) => write!(text, "XDP generic ({})", link.display())?,
        None if *path == UplinkPath::Tc => write!(text, "no XDP")?,
        None => write!(text, "XDP NOT ATTACHED")?,
    }
    write!(text, ", path {}", path.word())?;
    if let Some(master) = routed_by {
        write!(text, ", routes and neighbours of {master}")?;
    }
    writeln!(text)
}

/// The networks on VLANs; the others are where the uplink is.
fn write_vlans(text: &mut String, networks: &[EipNetworkStatus]) -> fmt::Result {
    for EipNetworkStatus { id, vlan, interface, ifindex, mtu, attached } in networks {
        let Some(vlan) = vlan else { continue };
        write!(text, "EIP network {id}, VLAN {vlan}: ")?;
        match (interface, ifindex, mtu) {
            (Some(name), Some(ifindex), Some(mtu)) => write!(text, "{name}, ifindex {ifindex}, MTU {mtu}, ")?,
            _ => write!(text, "NO INTERFACE at the moment, ")?,
        }
        match attached {
            Attachment::None => writeln!(text, "TC NOT ATTACHED")?,
            attached => writeln!(text, "TC by {}", word(*attached))?,
        }
    }
    Ok(())
}

fn write_overlay(text: &mut String, overlay: &OverlayStatus) -> fmt::Result {
    let OverlayStatus { vtep, guest_mtu, hosts, unreachable } = overlay;
    let plural = if *hosts == 1 { "" } else { "s" };
    write!(text, "between hosts: VTEP {vtep}, {hosts} other host{plural}, ")?;
    match guest_mtu {
        Some(mtu) => writeln!(text, "MTU {mtu} for guests")?,
        None => writeln!(text, "MTU not known")?,
    }
    for UnreachableHost { host, why } in unreachable {
        writeln!(text, "  host {host} is NOT REACHABLE: {why}")?;
    }
    Ok(())
}

const fn word(attached: Attachment) -> &'static str {
    match attached {
        Attachment::Tcx => "tcx",
        Attachment::Clsact => "clsact",
        Attachment::None => "no",
    }
}

fn write_drops(text: &mut String, drops: &[DropCount]) -> fmt::Result {
    let (mut happened, never): (Vec<_>, Vec<_>) = drops.iter().partition(|drop| drop.packets > 0);
    happened.sort_by_key(|drop| Reverse(drop.packets));
    if happened.is_empty() {
        writeln!(text, "no packet was dropped")?;
    } else {
        let row =
            |drop: &&DropCount| vec![drop.reason.clone(), drop.packets.to_string(), drop.description.clone()];
        text.push_str(&table(&["DROPPED FOR", "PACKETS", "MEANING"], happened.iter().map(row)));
    }
    if !never.is_empty() {
        write_list(text, "never for: ", never.iter().map(|drop| drop.reason.as_str()))?;
    }
    Ok(())
}

/// Names with commas between them, on as many lines as they need.
fn write_list<'a>(text: &mut String, title: &str, names: impl Iterator<Item = &'a str>) -> fmt::Result {
    text.push_str(title);
    let mut column = title.len();
    for (index, name) in names.enumerate() {
        let separator = match index {
            0 => "",
            _ if column + name.len() + 2 > LINE => {
                column = 0;
                ",\n  "
            }
            _ => ", ",
        };
        write!(text, "{separator}{name}")?;
        column += separator.len() + name.len();
    }
    writeln!(text)
}

fn write_losses(text: &mut String, losses: &LossStatus) -> fmt::Result {
    let LossStatus { source, why, packets, interface_packets, interfaces } = losses;
    if *source == LossSource::Tracepoint {
        writeln!(text, "lost after the verdict of XDP: {packets} packets, by tracepoint ({why})")?;
        writeln!(text, "not transmitted by the interfaces, XDP's included: {interface_packets} packets")?;
    } else {
        writeln!(text, "lost after the verdict: {packets} packets, by interface statistics ({why})")?;
    }
    for loss in interfaces.iter().filter(|loss| loss.packets > 0) {
        writeln!(text, "  {}: {}", loss.interface, loss.packets)?;
    }
    Ok(())
}

fn write_ports(text: &mut String, ports: &[PortStatus]) -> fmt::Result {
    if ports.is_empty() {
        return writeln!(text, "no ports on this host");
    }
    let headings = ["PORT", "INTERFACE", "IFINDEX", "ATTACHED", "PATH", "MTU", "BRIDGED", "WHY"];
    let row = |port: &PortStatus| {
        let PortStatus { id, interface, vlan, ifindex, attached, path, why, bridged, mtu } = port;
        let interface = vlan.map_or_else(|| interface.clone(), |vlan| format!("{interface} VLAN {vlan}"));
        let path = path.map(|path| match path {
            DeliveryPath::Xdp => "xdp",
            DeliveryPath::UplinkTc => "uplink-tc",
            DeliveryPath::Split => "split",
        });
        vec![
            id.clone(),
            interface,
            optional(*ifindex),
            word(*attached).to_owned(),
            optional(path),
            optional(*mtu),
            if *bridged { "yes" } else { "no" }.to_owned(),
            why.clone(),
        ]
    };
    text.push_str(&table(&headings, ports.iter().map(row)));
    Ok(())
}
