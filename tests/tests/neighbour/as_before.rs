//! One list of things that work, looked at before vipd comes, while it runs, after it was killed, and after `vipctl
//! detach`.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Guest, Lab, Mac, Netns, RawSender, UNDERLAY_HOST, UNDERLAY_OUTSIDE,
    capture::Capture,
    frame::{self, Frame},
    poll_until,
};

use crate::stage::{EIP, GATEWAY, SOON, Stage, VIP, reaches, take_vip};

const PLAIN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// Ports of DHCP (RFC 2131 section 4.1).
const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;

/// How much a TCP connection carries: enough for GSO packets.
const TRANSFERRED: usize = 4 << 20;

/// A TCP connection carries everything from client to server.
fn transfers(client: &Netns, server: &Netns, address: Ipv4Addr) -> Result<()> {
    let limit = Some(SOON);
    let listener = server.exec(|| TcpListener::bind((address, 0)).context("cannot listen"))?;
    let to = SocketAddrV4::new(address, listener.local_addr()?.port());
    let mut sender =
        client.exec(|| TcpStream::connect_timeout(&to.into(), SOON).context("cannot connect"))?;
    let (mut receiver, _) = listener.accept()?;
    receiver.set_read_timeout(limit)?;
    sender.set_write_timeout(limit)?;
    let count = thread::scope(|scope| {
        scope.spawn(move || sender.write_all(&vec![0x5a; TRANSFERRED]));
        let mut bytes = Vec::new();
        receiver.read_to_end(&mut bytes)
    })?;
    ensure!(count == TRANSFERRED, "{count} of {TRANSFERRED} bytes came from {}", client.label());
    Ok(())
}

/// The IPv6 link-local address that the kernel makes of a MAC (RFC 4291 appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [first, second, third, rest @ ..] = mac.0;
    let mut address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, first ^ 2, second, third, 0xff, 0xfe, 0, 0, 0];
    address[13..].copy_from_slice(&rest);
    address.into()
}

fn reaches_by_ipv6(from: &Guest, to: &Guest) -> Result<()> {
    let address = format!("{}%eth0", link_local(to.mac()));
    // Addresses are tentative for a second or two after an interface came up.
    poll_until(SOON, &format!("{address} to answer {}", from.name()), || {
        from.netns().check(&["ping", "-6", "-n", "-c", "1", "-W", "1", &address]).ok()
    })?;
    Ok(())
}

/// A DHCP message (RFC 2131 section 2) with its type (RFC 2132 section 9.6).
fn dhcp(operation: u8, kind: u8, transaction: u32, client: Mac, yours: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![operation, 1, 6, 0];
    message.extend(transaction.to_be_bytes());
    message.extend([0; 8]); // secs, flags, ciaddr
    message.extend(yours.octets());
    message.extend([0; 8]); // siaddr, giaddr
    message.extend(client.0);
    message.resize(236, 0); // the rest of chaddr, sname, file
    message.extend([99, 130, 83, 99, 53, 1, kind, 255]);
    message
}

/// The first exchange of DHCP: the client's DISCOVER is heard by server and host, and the OFFER comes back.
fn dhcp_works(stage: &Stage, client: &Guest, server: &Guest, transaction: u32) -> Result<()> {
    let at_server = Capture::start(server.netns(), "eth0")?;
    let at_client = Capture::start(client.netns(), "eth0")?;
    let at_host = Capture::start(stage.host.netns(), "br0")?;
    let discover = dhcp(1, 1, transaction, client.mac(), Ipv4Addr::UNSPECIFIED);
    let offer = dhcp(2, 2, transaction, client.mac(), client.address());
    let carries = |message: &[u8]| {
        let message = message.to_vec();
        move |frame: &Frame| !frame.outgoing && frame.udp().is_some_and(|(_, _, payload)| payload == message)
    };
    let question = frame::udp(
        (client.mac(), Mac::BROADCAST),
        (Ipv4Addr::UNSPECIFIED, DHCP_CLIENT),
        (Ipv4Addr::BROADCAST, DHCP_SERVER),
        &discover,
    )?;
    RawSender::new(client.netns(), "eth0")?.send(&question)?;
    at_server.wait_for(SOON, "DISCOVER", carries(&discover))?;
    at_host.wait_for(SOON, "DISCOVER", carries(&discover))?;
    let answer = frame::udp(
        (server.mac(), client.mac()),
        (server.address(), DHCP_SERVER),
        (client.address(), DHCP_CLIENT),
        &offer,
    )?;
    RawSender::new(server.netns(), "eth0")?.send(&answer)?;
    at_client.wait_for(SOON, "OFFER", carries(&offer))?;
    Ok(())
}

/// Everything that vipd must not touch.
fn must_work(stage: &Stage, when: &str) -> Result<()> {
    let Stage { first, second, third, fourth, plain, outside, host } = stage;
    let (client, hypervisor) = (outside.netns(), host.netns());
    let pings: [(&Netns, Ipv4Addr); 16] = [
        // Guests that are not in the state, among themselves and with those that are.
        (third.netns(), fourth.address()),
        (third.netns(), first.address()),
        (first.netns(), third.address()),
        (second.netns(), fourth.address()),
        // The host's bridge, which is everybody's gateway.
        (third.netns(), GATEWAY),
        (first.netns(), GATEWAY),
        (hypervisor, first.address()),
        (hypervisor, third.address()),
        // The host as a router, for prefixes in the state and others.
        (third.netns(), UNDERLAY_OUTSIDE),
        (first.netns(), UNDERLAY_OUTSIDE),
        (client, third.address()),
        (client, first.address()),
        (plain, UNDERLAY_OUTSIDE),
        (plain, third.address()),
        // The host's own traffic.
        (client, UNDERLAY_HOST),
        (hypervisor, UNDERLAY_OUTSIDE),
    ];
    for (from, to) in pings {
        reaches(from, to).with_context(|| format!("{when} vipd"))?;
    }
    let connections: [(&Netns, &Netns, Ipv4Addr); 8] = [
        (client, hypervisor, UNDERLAY_HOST),
        (hypervisor, client, UNDERLAY_OUTSIDE),
        (client, plain, PLAIN),
        (plain, client, UNDERLAY_OUTSIDE),
        (third.netns(), client, UNDERLAY_OUTSIDE),
        (first.netns(), client, UNDERLAY_OUTSIDE),
        (first.netns(), third.netns(), third.address()),
        (third.netns(), fourth.netns(), fourth.address()),
    ];
    for (from, to, address) in connections {
        transfers(from, to, address)
            .with_context(|| format!("{when} vipd, from {} to {}", from.label(), to.label()))?;
    }
    for (from, to) in [(third, fourth), (first, third), (third, second), (first, second)] {
        reaches_by_ipv6(from, to).with_context(|| format!("{when} vipd"))?;
    }
    for (number, (client, server)) in (0..).zip([(first, third), (third, fourth)]) {
        dhcp_works(stage, client, server, number)
            .with_context(|| format!("{when} vipd, DHCP of {}", client.name()))?;
    }
    Ok(())
}

#[test]
fn all_that_worked_before_vipd_works_with_it_without_it_and_after_it() {
    Lab::run(|lab| {
        let stage = Stage::build(lab)?;
        must_work(&stage, "before")?;
        let mut vipd = stage.start_vipd()?;
        take_vip(&vipd, &stage.first)?;
        reaches(stage.outside.netns(), EIP)?;
        must_work(&stage, "with")?;
        vipd.kill9()?;
        must_work(&stage, "with a dead")?;
        reaches(stage.outside.netns(), EIP)?;
        let bpffs = vipd.bpffs();
        let output =
            vipd.vipctl_output(&["detach", "--bpffs", bpffs.to_str().context("a path that is text")?])?;
        ensure!(output.status.success(), "{output}");
        must_work(&stage, "after")?;
        reaches(stage.third.netns(), VIP)
    });
}

#[test]
fn guests_that_start_while_vipd_runs_but_are_not_in_the_state_are_left_alone() {
    Lab::run(|lab| {
        let stage = Stage::build(lab)?;
        stage.third.unplug()?;
        let vipd = stage.start_vipd()?;
        stage.third.plug()?;
        stage.host.enslave("tap2", "br0")?;
        for to in [stage.fourth.address(), stage.first.address(), GATEWAY, UNDERLAY_OUTSIDE] {
            reaches(stage.third.netns(), to)?;
        }
        let programs = stage
            .host
            .netns()
            .run_within(Duration::from_secs(10), &["tc", "filter", "show", "dev", "tap2", "ingress"])?;
        ensure!(programs.stdout.trim().is_empty(), "{programs}");
        let status = vipd.vipctl(&["status", "-o", "json"])?;
        ensure!(!status.to_string().contains("tap2"), "{status}");
        Ok(())
    });
}
