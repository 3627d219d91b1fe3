//! What the labs of several hosts have in common.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    ops::Deref,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Announcement, Cluster, Guest, IperfOptions, IperfServer, Mac, Netns, RawSender,
    capture::Capture,
    cluster::{PEERS_PORT, Queues, VIP_ID},
    frame::{Arp, Frame},
    http, poll_until,
    scene::{VIP, page_of},
    stream::{StreamReport, UdpStream},
    underlay::Cut,
    virtio,
    vxlan::Tunnelled,
};

/// For what should happen soon, on a machine that is busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Missed adverts, and a busy machine.
pub(crate) const ELECTION: Duration = Duration::from_secs(40);

/// Where datagrams go.
pub(crate) const PORT: u16 = 9000;

/// Where those of a second stream go.
pub(crate) const OTHER_PORT: u16 = 9001;

/// Datagrams a second of a stream: what the queues of an emulated machine's cables (256 frames each) take even if it stands still for a second.
fn rate() -> u32 {
    if virtio::is_emulated() { 200 } else { 2_000 }
}

/// A stream lasts longer than what is done meanwhile on the slowest machine.
pub(crate) const STREAM_TIME: Duration = Duration::from_secs(120);

/// A guest has the VIP on its interface and says so to everybody.
pub(crate) fn take(cluster: &Cluster, name: &str) -> Result<Value> {
    let guest = cluster.guest(name)?;
    if !guest.has_address(VIP)? {
        guest.add_vip_address(VIP)?;
    }
    claim(guest)?;
    cluster.wait_for_owner(VIP_ID, name, SOON)
}

/// A guest takes the VIP by gratuitous ARP.
pub(crate) fn claim(guest: &Guest) -> Result<()> {
    guest.arping(Announcement::Request, VIP)
}

/// A guest takes the VIP by one frame, sent now and not by a program that has to start first.
pub(crate) fn claim_at_once(guest: &Guest) -> Result<Instant> {
    let sender = RawSender::new(guest.netns(), "eth0")?;
    let frame = Arp::gratuitous_request(guest.mac(), VIP).frame(guest.mac(), Mac::BROADCAST);
    let at = Instant::now();
    sender.send(&frame)?;
    Ok(at)
}

/// Gives guests the VIP on their interfaces; nobody says so.
pub(crate) fn add_vip(cluster: &Cluster, guests: &[&str]) -> Result<()> {
    guests.iter().try_for_each(|name| cluster.guest(name)?.add_vip_address(VIP))
}

/// `second` takes the VIP, and the third host is not told: it believes the old owner still.
pub(crate) fn take_untold(cluster: &Cluster) -> Result<()> {
    cluster.underlay().cut(cluster.host(3)?.netns(), Cut::Peers(PEERS_PORT))?;
    claim_at_once(cluster.guest("second")?)?;
    for host in [1, 2] {
        cluster.vipd(host)?.wait_for_owner(VIP_ID, "second", SOON)?;
    }
    Ok(())
}

/// The name of something to do, and how.
type Named<T> = (&'static str, fn(&mut T) -> Result<()>);

/// Does several things in one cluster, or whatever they are done in, one after the other. All of them are tried, and the error tells of
/// each that failed; where one leaves something behind for the next, the first is the one to look at.
pub(crate) fn each_in<T>(place: &mut T, all: &[Named<T>]) -> Result<()> {
    let mut failed = Vec::new();
    for (name, one) in all {
        match one(place) {
            Ok(()) => println!("{name} ... ok"),
            Err(error) => failed.push(format!("{name}: {error:#}")),
        }
    }
    ensure!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), all.len(), failed.join("\n"));
    Ok(())
}

/// [`each_in`], by the names of the functions.
macro_rules! each {
    ($place:expr; $($one:ident),+ $(,)?) => {
        $crate::stage::each_in($place, &[$((stringify!($one), $one)),+])
    };
}
pub(crate) use each;

/// Starts the vipd of a host that has none running.
pub(crate) fn restart(cluster: &mut Cluster, host: u8) -> Result<()> {
    cluster.vipd_mut(host)?.begin()?;
    cluster.vipd_mut(host)?.ready()
}

/// Takes all tables of a host away and starts its vipd anew.
pub(crate) fn begin_with_fresh_tables(cluster: &mut Cluster, host: u8) -> Result<()> {
    let bpffs = cluster.vipd(host)?.bpffs();
    let bpffs = bpffs.to_str().context("a path that is no text")?;
    let output = cluster.vipd(host)?.vipctl_output(&["detach", "--bpffs", bpffs])?;
    ensure!(output.status.success(), "{output}");
    cluster.vipd_mut(host)?.wait_for_end(SOON)?;
    restart(cluster, host)
}

/// The epoch of a VIP's ownership.
pub(crate) fn epoch(vip: &Value) -> Result<u64> {
    vip.pointer("/owner/epoch").and_then(Value::as_u64).with_context(|| format!("no epoch in {vip}"))
}

/// A word of a VIP's owner, e.g. `learned_from`.
pub(crate) fn owner_field<'a>(vip: &'a Value, field: &str) -> Option<&'a str> {
    vip.pointer("/owner")?.get(field)?.as_str()
}

/// Fails unless an address answers echo requests, all of them.
pub(crate) fn ensure_pings(from: &Netns, to: Ipv4Addr) -> Result<()> {
    let report = from.ping(to, 3)?;
    ensure!(report.received == report.sent, "{} to {to}: {}", from.label(), report.text);
    Ok(())
}

/// Waits until an address answers.
pub(crate) fn wait_for_ping(from: &Netns, to: Ipv4Addr) -> Result<()> {
    poll_until(SOON, &format!("{to} to answer {}", from.label()), || {
        from.ping(to, 1).ok().filter(|report| report.received == 1)
    })
    .map(drop)
}

/// Fails unless nobody answers.
pub(crate) fn ensure_silent(from: &Netns, to: Ipv4Addr) -> Result<()> {
    let report = from.ping(to, 2)?;
    ensure!(report.received == 0, "{to} answered {}: {}", from.label(), report.text);
    Ok(())
}

/// Fails unless an address serves this page.
pub(crate) fn ensure_serves(from: &Netns, address: Ipv4Addr, body: &str) -> Result<()> {
    let page = http::get(from, page_of(address), "/", SOON)?;
    ensure!(page.status == 200 && page.body == body, "{} to {address}: {page:?}", from.label());
    Ok(())
}

/// A socket of a namespace; reads give up.
pub(crate) fn socket(netns: &Netns, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    netns.exec(|| {
        let socket = UdpSocket::bind((address, port))?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(socket)
    })
}

/// Fails unless a datagram to `outer` arrives at a guest's socket on `inner`, and the answer comes back from `outer`.
pub(crate) fn ensure_echoes(from: &Netns, outer: Ipv4Addr, guest: &Guest, inner: Ipv4Addr) -> Result<()> {
    let (server, client) = (socket(guest.netns(), inner, PORT)?, socket(from, Ipv4Addr::UNSPECIFIED, 0)?);
    let mut buffer = [0; 64];
    client.send_to(b"question", (outer, PORT))?;
    let (length, asker) = server.recv_from(&mut buffer).context("the datagram did not arrive")?;
    ensure!(buffer.get(..length) == Some(b"question"), "it arrived changed");
    server.send_to(b"answer", asker)?;
    let (length, answerer) = client.recv_from(&mut buffer).context("the answer did not arrive")?;
    ensure!(buffer.get(..length) == Some(b"answer"), "the answer arrived changed");
    ensure!(answerer == SocketAddrV4::new(outer, PORT).into(), "the answer is from {answerer}");
    Ok(())
}

/// Fails unless TCP carries something for a second from one guest to an address that another one has; `reverse`: the other way.
pub(crate) fn ensure_carries_tcp(from: &Guest, to: &Guest, address: Ipv4Addr, reverse: bool) -> Result<()> {
    let server = IperfServer::start(to.netns(), 5201)?;
    let options = IperfOptions { address, port: server.port(), time: Duration::from_secs(1), reverse };
    let report = from.netns().iperf(options)?;
    ensure!(report.bits_per_second > 0.0, "{} to {} at {address}: nothing came", from.name(), to.name());
    server.stop()
}

/// A running stream, and the lab's own queues, some of which are on its way.
pub(crate) struct Stream {
    sending: UdpStream,
    queues: Queues,
    /// Frames for which they had no room before.
    before: u64,
}

impl Deref for Stream {
    type Target = UdpStream;

    fn deref(&self) -> &UdpStream {
        &self.sending
    }
}

impl Stream {
    /// Waits until all is sent and nothing more arrives.
    pub(crate) fn finish(self) -> Result<Finished> {
        let report = self.sending.finish()?;
        let no_room = self.queues.no_room()?.saturating_sub(self.before);
        Ok(Finished { report, no_room: usize::try_from(no_room)? })
    }
}

/// What became of a stream.
pub(crate) struct Finished {
    report: StreamReport,
    /// Frames for which the lab's own queues had no room meanwhile: that so many are lost says nothing about the forwarder.
    pub(crate) no_room: usize,
}

impl Deref for Finished {
    type Target = StreamReport;

    fn deref(&self) -> &StreamReport {
        &self.report
    }
}

/// Numbered datagrams to an address; these guests listen.
pub(crate) fn stream(cluster: &Cluster, from: &Netns, to: Ipv4Addr, guests: &[&str]) -> Result<Stream> {
    stream_to(cluster, from, SocketAddrV4::new(to, PORT), guests)
}

/// The same to another port: guests listen for two streams at once.
pub(crate) fn stream_to(
    cluster: &Cluster,
    from: &Netns,
    to: SocketAddrV4,
    guests: &[&str],
) -> Result<Stream> {
    let receivers = guests.iter().map(|name| cluster.guest(name)).collect::<Result<Vec<_>>>()?;
    let receivers: Vec<&Netns> = receivers.into_iter().map(Guest::netns).collect();
    let queues = cluster.queues()?;
    let before = queues.no_room()?;
    let sending = UdpStream::start(from, to, rate(), STREAM_TIME, &receivers)?;
    Ok(Stream { sending, queues, before })
}

/// Waits until a guest has got `more` datagrams of a running stream from now on.
pub(crate) fn wait_for_more(stream: &UdpStream, guest: &Guest, more: usize) -> Result<()> {
    let enough = stream.received(guest.netns()) + more;
    poll_until(SOON, &format!("{more} more datagrams at {}", guest.name()), || {
        (stream.received(guest.netns()) >= enough).then_some(())
    })
}

/// Ends a stream, all of whose datagrams must have arrived, once, wherever; but for those that the lab itself has lost.
pub(crate) fn finish_whole(stream: Stream) -> Result<Finished> {
    stream.stop_sending();
    let report = stream.finish()?;
    let lost = report.lost();
    ensure!(!report.sent.is_empty(), "nothing was sent");
    ensure!(
        lost.len() <= report.no_room && report.duplicates() == 0,
        "{} of {} datagrams were lost, the lab's queues had no room for {}, and {} doubled; the first lost: {:?}; received: {:?}",
        lost.len(),
        report.sent.len(),
        report.no_room,
        report.duplicates(),
        lost.first(),
        report.receivers.iter().map(|it| (&it.namespace, it.arrivals.len())).collect::<Vec<_>>()
    );
    Ok(report)
}

/// Fails if a datagram that was sent after `since` has arrived at anybody but one guest, or nowhere though the lab had room for it.
pub(crate) fn ensure_all_at(report: &Finished, guest: &Guest, since: Instant) -> Result<()> {
    let name = guest.netns().label();
    let number_since = report.sent.partition_point(|at| *at < since);
    let lost = report.lost().into_iter().filter(|(_, at)| *at >= since).count();
    ensure!(
        lost <= report.no_room,
        "{lost} datagrams that were sent after the move was known were lost, and the lab's queues had no room for {}",
        report.no_room
    );
    for receiver in report.receivers.iter().filter(|receiver| receiver.namespace != name) {
        let late = receiver.arrivals.iter().filter(|it| it.number >= number_since as u64).count();
        ensure!(
            late == 0,
            "{} got {late} datagrams that were sent after every host knew that {name} owns the VIP",
            receiver.namespace
        );
    }
    ensure!(report.sent.len() > number_since, "nothing was sent after the move");
    Ok(())
}

/// What a capture has seen of VXLAN that came in: on a port of the segment's bridge, what the host behind it has sent.
pub(crate) fn tunnelled(capture: &Capture) -> Result<Vec<Tunnelled>> {
    let frames = capture.matching(|frame| !frame.outgoing && frame.ether_type() == Some(0x0800))?;
    Ok(frames.iter().filter_map(Frame::tunnelled).collect())
}

/// A capture of what a host sends to the underlay, and gets from there.
pub(crate) fn watch(cluster: &Cluster, host: u8) -> Result<Capture> {
    Capture::start(cluster.underlay().segment(), cluster.cable(host)?)
}

/// Whether a frame went from one to the other.
pub(crate) fn is_between(frame: &Frame, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
    frame.ipv4().is_some_and(|ip| (ip.source, ip.destination) == (source, destination))
}
