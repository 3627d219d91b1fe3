//! Interfaces and their statistics.

use std::fmt::Write as _;

use vip_userspace::net::{LinkEvent, LinkKind, LinkWatch, Master, NetError, Netlink, PacketSocket};

use crate::lab::{ifindex, in_namespace, mac, run};

#[test]
fn a_snapshot_says_what_iproute2_says() {
    in_namespace(|| async {
        run("ip link add veth0 mtu 1400 type veth peer name veth1");
        run("ip link add br0 type bridge");
        run("ip link set veth0 master br0 up");
        run("ip link set veth1 up");
        run("ip tuntap add tap0 mode tap");
        run("ip tuntap add tun0 mode tun");
        run("ip link add link veth1 name macvlan0 type macvlan");
        let links = Netlink::open().expect("a socket").links().await.expect("a snapshot");

        let veth = links.by_name("veth0").expect("veth0 is listed");
        assert_eq!(veth.ifindex, ifindex("veth0"));
        assert_eq!(veth.mac, Some(mac("veth0")));
        assert_eq!((veth.mtu, veth.up, veth.running, veth.carrier), (1400, true, true, true));
        assert_eq!(veth.kind, LinkKind::Veth);
        assert_eq!(veth.master, Some(Master { ifindex: ifindex("br0"), kind: LinkKind::Bridge }));
        assert_eq!(veth.xdp, None);

        let tap = links.by_name("tap0").expect("tap0 is listed");
        assert_eq!((tap.kind.clone(), tap.up, tap.carrier), (LinkKind::Tun, false, false));
        assert_eq!(links.by_name("tun0").and_then(|tun| tun.mac), None, "a tun device has no MAC");
        assert_eq!(links.by_name("macvlan0").map(|link| link.kind.to_string()).as_deref(), Some("macvlan"));
        assert_eq!(links.by_name("lo").map(|link| link.kind.clone()), Some(LinkKind::Device));
        assert_eq!(links.iter().count(), run("ip -o link").lines().count());
    });
}

#[test]
fn an_interface_is_followed_from_its_birth_over_renaming_and_bridging_to_its_end() {
    in_namespace(|| async {
        let netlink = Netlink::open().expect("a socket");
        let mut watch = LinkWatch::open(&netlink).await.expect("a watch");

        run("ip link add guest0 type veth peer name guest1");
        until(&mut watch, |event| matches!(event, LinkEvent::Added(link) if link.name == "guest0")).await;
        let guest = ifindex("guest0");

        run("ip link set guest0 up");
        run("ip link set guest1 up");
        until(&mut watch, |event| matches!(event, LinkEvent::Changed { after, .. } if after.ifindex == guest && after.carrier))
            .await;

        run("ip link set guest1 down");
        until(&mut watch, |event| matches!(event, LinkEvent::Changed { before, after } if after.ifindex == guest && before.carrier && !after.carrier))
            .await;

        run("ip link add br0 type bridge");
        run("ip link set guest0 master br0");
        let bridge = Some(Master { ifindex: ifindex("br0"), kind: LinkKind::Bridge });
        until(&mut watch, |event| matches!(event, LinkEvent::Changed { after, .. } if after.ifindex == guest && after.master == bridge))
            .await;

        // Before Linux 6.2 an interface that is up keeps its name.
        run("ip link set guest0 down");
        run("ip link set guest0 name other0");
        until(&mut watch, |event| matches!(event, LinkEvent::Changed { before, after } if before.name == "guest0" && after.name == "other0"))
            .await;
        assert!(watch.links().by_name("guest0").is_none());

        run("ip link del other0");
        until(&mut watch, |event| matches!(event, LinkEvent::Removed(link) if link.ifindex == guest)).await;
        assert!(watch.links().get(guest).is_none());
    });
}

#[test]
fn a_watch_that_sleeps_through_a_storm_of_notifications_ends_up_right() {
    in_namespace(|| async {
        let netlink = Netlink::open().expect("a socket");
        let mut watch = LinkWatch::open(&netlink).await.expect("a watch");
        // Far more than the socket's buffer holds, while nobody reads: the kernel answers ENOBUFS.
        let mut batch = String::from("link add storm0 type bridge\n");
        for mtu in 0..12_000 {
            writeln!(batch, "link set storm0 mtu {}", 1000 + mtu % 400).expect("a String takes all");
        }
        batch.push_str("link set storm0 mtu 777\n");
        let file = std::env::temp_dir().join(format!("net-kernel-storm-{}", std::process::id()));
        std::fs::write(&file, batch).expect("the batch is written");
        run(&format!("ip -batch {}", file.display()));
        std::fs::remove_file(&file).expect("the batch is removed");

        until(
            &mut watch,
            |event| matches!(event, LinkEvent::Added(link) if link.name == "storm0" && link.mtu == 777),
        )
        .await;
        // And it still works.
        run("ip link del storm0");
        until(&mut watch, |event| matches!(event, LinkEvent::Removed(link) if link.name == "storm0")).await;
    });
}

#[test]
fn statistics_grow_with_what_the_other_end_sends() {
    in_namespace(|| async {
        run("ip link add veth0 type veth peer name veth1");
        for end in ["veth0", "veth1"] {
            run(&format!("ip link set {end} arp off up"));
        }
        let netlink = Netlink::open().expect("a socket");
        let (sender, receiver) = (ifindex("veth0"), ifindex("veth1"));
        let before = netlink.link_stats(receiver).await.expect("statistics");
        let socket = PacketSocket::open(sender).expect("a packet socket");
        for _ in 0..5 {
            socket.send(&[0xee; 100]).expect("the frame is sent");
        }
        loop {
            let after = netlink.link_stats(receiver).await.expect("statistics");
            let packets = after.rx_packets - before.rx_packets;
            if packets >= 5 {
                assert!(after.rx_bytes - before.rx_bytes >= 500);
                break;
            }
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn asking_about_an_interface_that_is_not_there_is_told_apart() {
    in_namespace(|| async {
        let error = Netlink::open().expect("a socket").link_stats(4711).await.expect_err("no such interface");
        assert!(matches!(error, NetError::NoSuchInterface { ifindex: 4711, .. }), "{error}");
    });
}

/// Waits for an event.
async fn until(watch: &mut LinkWatch, wanted: impl Fn(&LinkEvent) -> bool) {
    while !watch.next().await.expect("events").iter().any(&wanted) {}
}
