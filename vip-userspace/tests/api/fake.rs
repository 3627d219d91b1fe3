//! A made-up host to ask: two keepalived guests, one VIP owned and one not.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use tempfile::TempDir;
use tokio::sync::oneshot;
use vip_common::DropReason;
use vip_userspace::api::{
    Object, Source, Timestamp, Unavailable,
    model::{
        EipView, HostView, MoveView, OwnerView, PortBinding, PortView, Right, RouterView, SubnetView,
        VipBinding, VipState, VipView, VpcView,
    },
    server::{SOCKET_MODE, Socket},
    status::{
        Attachment, DeliveryPath, DropCount, Durations, EventsLost, InterfaceLoss, LossSource, LossStatus,
        PeerStatus, PeerView, PeersStatus, PortStatus, RefusedCounts, StatusView, SyncState, SyncStatus,
        TableUse, UplinkStatus, XdpView,
    },
};
use vip_userspace::config::UplinkPath;

/// Answers with the made-up host; `extra_ports` more ports make long lists. What is `unavailable` leaves only the status.
#[derive(Default)]
pub(crate) struct FakeHost {
    pub(crate) extra_ports: usize,
    pub(crate) unavailable: Option<Unavailable>,
}

impl FakeHost {
    fn known<T>(&self, answer: T) -> Result<T, Unavailable> {
        self.unavailable.clone().map_or(Ok(answer), Err)
    }
}

/// 2025-06-01 12:00:00 UTC and some seconds.
pub(crate) fn moment(seconds: u64) -> Timestamp {
    Timestamp::new(UNIX_EPOCH + Duration::from_secs(1_748_779_200 + seconds))
}

fn only<T: Object>(all: Vec<T>, id: Option<&str>) -> Vec<T> {
    all.into_iter().filter(|object| id.is_none_or(|id| id == object.id())).collect()
}

pub(crate) fn host() -> HostView {
    HostView {
        id: "hv1".into(),
        vtep: Ipv4Addr::new(172, 31, 0, 1),
        this: true,
        ports: 2,
        name: None,
        remark: Some("rack 4, \"left\"".into()),
        reachable: true,
        next_hop: None,
        next_hop_mac: None,
        mtu: None,
        why: None,
    }
}

pub(crate) fn vpc() -> VpcView {
    VpcView {
        id: "blue".into(),
        vni: 4001,
        peers: vec!["green".into(), "red".into()],
        subnets: vec!["web".into()],
        ports: 2,
        vips: 2,
        name: Some("Blue, Inc.".into()),
        remark: None,
    }
}

pub(crate) fn subnet() -> SubnetView {
    SubnetView {
        id: "web".into(),
        vpc: "blue".into(),
        cidr: "192.168.4.0/22".parse().expect("a prefix"),
        gateway: Ipv4Addr::new(192, 168, 4, 1),
        router: RouterView::External,
        ports: 2,
        vips: 2,
        name: None,
        remark: None,
    }
}

pub(crate) fn port(id: &str, last: u8) -> PortView {
    PortView {
        id: id.into(),
        vpc: "blue".into(),
        subnet: "web".into(),
        address: Ipv4Addr::new(192, 168, 7, last),
        mac: format!("02:00:00:00:07:{last:02x}").parse().expect("a MAC"),
        host: "hv1".into(),
        interface: format!("tap{last}"),
        vlan: None,
        ifindex: None,
        source_dest_check: true,
        eip: None,
        owns: vec!["nginx-vip".into()],
        bound: vec![VipBinding { vip: "nginx-vip".into(), rights: vec![Right::Own, Right::Source] }],
        name: None,
        remark: None,
    }
}

pub(crate) fn owned_vip() -> VipView {
    VipView {
        owner: Some(OwnerView {
            port: "nginx-master".into(),
            host: "hv1".into(),
            // Reads as a number in base 60 to a careless YAML parser.
            mac: "02:00:00:00:07:17".parse().expect("a MAC"),
            epoch: 3,
            since: Some(moment(9)),
            learned_from: Some("garp_request".into()),
        }),
        state: VipState::Owned,
        ..unowned_vip("nginx-vip", 246)
    }
}

pub(crate) fn unowned_vip(id: &str, last: u8) -> VipView {
    VipView {
        id: id.into(),
        vpc: "blue".into(),
        subnet: "web".into(),
        address: Ipv4Addr::new(192, 168, 7, last),
        state: VipState::Unowned,
        owner: None,
        epoch: 3,
        bound: vec![
            PortBinding { port: "nginx-master".into(), rights: vec![Right::Own] },
            PortBinding { port: "nginx-slave".into(), rights: vec![Right::Own, Right::Source] },
        ],
        eip: Some("web-eip".into()),
        vrids: vec![66, 67],
        packets_in: 10,
        bytes_in: 1000,
        packets_out: 9,
        bytes_out: u64::MAX,
        packets_onward: 5,
        bytes_onward: 500,
        name: Some("yes".into()),
        remark: Some("a, b\n\"c\"".into()),
    }
}

pub(crate) fn eip() -> EipView {
    EipView {
        id: "web-eip".into(),
        address: Ipv4Addr::new(203, 0, 113, 10),
        vpc: "blue".into(),
        vip: Some("nginx-vip".into()),
        port: None,
        inner: Ipv4Addr::new(192, 168, 7, 246),
        served_by: Some("nginx-master".into()),
        network: None,
        packets_in: 1,
        bytes_in: 2,
        packets_out: 3,
        bytes_out: 4,
        name: None,
        remark: None,
    }
}

pub(crate) fn moves() -> Vec<MoveView> {
    vec![
        MoveView {
            epoch: 2,
            at: moment(9),
            port: None,
            host: None,
            previous: Some("nginx-slave".into()),
            learned_from: "state".into(),
        },
        MoveView {
            epoch: 1,
            at: moment(0),
            port: Some("nginx-slave".into()),
            host: Some("hv1".into()),
            previous: None,
            learned_from: "arp".into(),
        },
    ]
}

pub(crate) fn status() -> StatusView {
    StatusView {
        host: "hv1".into(),
        pid: 4711,
        version: "0.1.0".into(),
        started_at: moment(0),
        adopted: true,
        uplink: UplinkStatus {
            name: "eth0".into(),
            ifindex: Some(2),
            mac: Some("52:54:00:00:00:01".parse().expect("a MAC")),
            mtu: Some(1500),
            xdp: Some(XdpView::Native),
            path: UplinkPath::Xdp,
            link: "/sys/fs/bpf/vip/link_uplink".into(),
            routed_by: None,
        },
        eip_networks: Vec::new(),
        overlay: None,
        ports: vec![PortStatus {
            id: "nginx-master".into(),
            interface: "veth0".into(),
            vlan: None,
            ifindex: Some(7),
            attached: Attachment::Tcx,
            path: Some(DeliveryPath::UplinkTc),
            why: "veth whose guest end has no GRO: takes no XDP frames".into(),
            bridged: false,
            mtu: Some(1450),
        }],
        drops: DropCount::list(|reason| match reason {
            DropReason::Unowned => 5,
            DropReason::ClaimNotMember => 70,
            _ => 0,
        }),
        losses: LossStatus {
            source: LossSource::InterfaceStatistics,
            why: "the kernel refuses the tracepoint".into(),
            packets: 2,
            interface_packets: 2,
            interfaces: vec![InterfaceLoss { interface: "veth0".into(), packets: 2 }],
        },
        sync: SyncStatus {
            state: SyncState::Refused,
            file: "/etc/vip/state.yaml".into(),
            loaded_at: Some(moment(1)),
            error: Some("line 7: no such port".into()),
        },
        durations: Durations { parse_ms: 12, plan_ms: 3, apply_ms: 4 },
        tables: vec![TableUse { table: "ADDRS".into(), used: 5, capacity: 4096 }],
        events_lost: EventsLost { ownership: 0, refusals: 12, waiting: 0 },
        icmp_errors_held_back: 7,
        peers: Some(PeersStatus {
            port: 4790,
            learning: false,
            hosts: vec![PeerStatus {
                host: "hv2".into(),
                vtep: Ipv4Addr::new(172, 31, 0, 2),
                state: PeerView::Down,
                heard_ms_ago: Some(8123),
                unacked: 3,
                applied: 17,
                refused: RefusedCounts { auth: 5, ..RefusedCounts::default() },
            }],
            waiting: 1,
            unlisted: 2,
        }),
        warnings: vec!["IPv6 from guests: MAC check only, not forwarded by us".into()],
    }
}

impl Source for FakeHost {
    fn hosts(&self, id: Option<&str>) -> Result<Vec<HostView>, Unavailable> {
        self.known(only(vec![host()], id))
    }

    fn vpcs(&self, id: Option<&str>) -> Result<Vec<VpcView>, Unavailable> {
        self.known(only(vec![vpc()], id))
    }

    fn subnets(&self, id: Option<&str>) -> Result<Vec<SubnetView>, Unavailable> {
        self.known(only(vec![subnet()], id))
    }

    fn ports(&self, id: Option<&str>) -> Result<Vec<PortView>, Unavailable> {
        let mut ports = vec![port("nginx-master", 247), port("nginx-slave", 248)];
        ports.extend((0..self.extra_ports).map(|number| port(&format!("extra-{number}"), 9)));
        self.known(only(ports, id))
    }

    fn vips(&self, id: Option<&str>) -> Result<Vec<VipView>, Unavailable> {
        self.known(only(vec![owned_vip(), unowned_vip("spare:vip", 245)], id))
    }

    fn eips(&self, id: Option<&str>) -> Result<Vec<EipView>, Unavailable> {
        // A question that fails must not take the server with it.
        assert_ne!(id, Some("broken"), "asked for the object that breaks the source");
        self.known(only(vec![eip()], id))
    }

    fn status(&self) -> Result<StatusView, Unavailable> {
        Ok(status())
    }

    fn history(&self, vip: &str) -> Result<Option<Vec<MoveView>>, Unavailable> {
        self.known((vip == "nginx-vip").then(moves))
    }
}

/// A vipd that only answers, on a thread of its own, until it is dropped.
pub(crate) struct FakeVipd {
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl FakeVipd {
    /// Starts one; it answers when this returns.
    pub(crate) fn start(source: FakeHost) -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("run/vipd.sock");
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            runtime().block_on(async {
                let socket = Socket::bind(&path, SOCKET_MODE).expect("a socket");
                ready.send(()).expect("the test waits");
                let shutdown = async {
                    let _ = stopped.await;
                };
                socket.serve(Arc::new(source), shutdown).await.expect("served to the end");
            });
        });
        is_ready.recv().expect("the server started");
        Self { directory, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/vipd.sock")
    }

    /// Ends it and waits for its end.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ended well");
        }
    }
}

impl Drop for FakeVipd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A runtime for one thread.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What a file's permissions are.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).expect("the file").permissions().mode() & 0o7777
}
