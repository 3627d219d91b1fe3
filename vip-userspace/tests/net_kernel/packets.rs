//! Frames that the agent sends, as the kernel at the other end of the wire understands them.

use std::net::Ipv4Addr;

use vip_userspace::net::{NetError, PacketSocket, announcement, reply, request};

use crate::lab::{Peer, ifindex, in_namespace, mac, run};

const EIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn topology() -> Peer {
    let router = Peer::new();
    run(&format!("ip link add uplink0 type veth peer name eth0 netns {}", router.pid()));
    run("ip link set uplink0 up");
    router.run("ip addr add 192.0.2.1/24 dev eth0");
    router.run("ip link set eth0 up");
    router
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[test]
fn an_announcement_corrects_what_a_router_remembers() {
    in_namespace(|| async {
        let router = topology();
        router.run("ip neigh add 192.0.2.10 lladdr 02:00:00:00:00:01 dev eth0 nud stale");
        let uplink = mac("uplink0");
        let socket = PacketSocket::open(ifindex("uplink0")).expect("a packet socket");
        until_remembered(&router, &socket, &announcement(uplink, EIP), uplink).await;
    });
}

#[test]
fn a_reply_and_a_request_are_understood_too() {
    in_namespace(|| async {
        let router = topology();
        let uplink = mac("uplink0");
        let line = router.run("ip -br link show dev eth0");
        let theirs = crate::lab::parse_mac(line.split_whitespace().nth(2).expect("the MAC"));
        let socket = PacketSocket::open(ifindex("uplink0")).expect("a packet socket");

        // Otherwise the kernel does not believe another answer for a second.
        router.run("sysctl -qw net.ipv4.neigh.eth0.locktime=0");
        router.run("ip neigh add 192.0.2.10 lladdr 02:00:00:00:00:01 dev eth0 nud stale");
        until_remembered(&router, &socket, &reply(uplink, theirs, uplink, EIP, theirs, ROUTER), uplink).await;

        // Whoever is asked learns who asks.
        router.run("ip neigh del 192.0.2.10 dev eth0");
        until_remembered(&router, &socket, &request(uplink, theirs, uplink, EIP, ROUTER), uplink).await;
    });
}

#[test]
fn a_socket_for_a_missing_interface_is_refused_by_name() {
    in_namespace(|| async {
        let error = PacketSocket::open(4711).expect_err("no such interface");
        assert!(matches!(error, NetError::NoSuchInterface { ifindex: 4711, .. }), "{error}");
    });
}

#[test]
fn a_frame_through_an_interface_that_is_down_or_too_long_is_an_error() {
    in_namespace(|| async {
        let _router = topology();
        let socket = PacketSocket::open(ifindex("uplink0")).expect("a packet socket");
        let error = socket.send(&[0; 4000]).expect_err("longer than the MTU");
        assert!(matches!(error, NetError::Send { len: 4000, .. }), "{error}");
        run("ip link set uplink0 down");
        assert!(socket.send(&announcement([2, 0, 0, 0, 0, 1], EIP)).is_err());
    });
}

/// Sends the frame until the router knows the MAC: within one tick of its clock it believes no second answer.
async fn until_remembered(router: &Peer, socket: &PacketSocket, frame: &[u8], mac: [u8; 6]) {
    let wanted = format!("lladdr {}", text(mac));
    loop {
        socket.send(frame).expect("the frame is sent");
        if router.run("ip neigh show 192.0.2.10 dev eth0").contains(&wanted) {
            return;
        }
        tokio::task::yield_now().await;
    }
}
