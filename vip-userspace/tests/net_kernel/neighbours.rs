//! Neighbours.

use std::{collections::BTreeSet, fmt::Write as _, net::Ipv4Addr};

use vip_userspace::net::{Neighbour, NeighbourEvent, NeighbourState, NeighbourWatch, NetError, Netlink};

use crate::lab::{Peer, ifindex, in_namespace, parse_mac, run};

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
const CLIENT_MAC: &str = "02:00:00:00:00:09";

/// The host's uplink0 (192.0.2.5) and a client on its wire.
fn topology() -> (u32, Peer) {
    let client = Peer::new();
    run(&format!("ip link add uplink0 type veth peer name eth0 address {CLIENT_MAC} netns {}", client.pid()));
    run("ip addr add 192.0.2.5/24 dev uplink0");
    run("ip link set uplink0 up");
    client.run("ip addr add 192.0.2.9/24 dev eth0");
    client.run("ip link set eth0 up");
    (ifindex("uplink0"), client)
}

#[test]
fn keep_alive_resolves_an_unknown_neighbour_and_a_silent_one_fails() {
    in_namespace(|| async {
        let (uplink, _client) = topology();
        let netlink = Netlink::open().expect("a socket");
        let mut watch = NeighbourWatch::open(&netlink, BTreeSet::from([uplink])).await.expect("a watch");
        assert_eq!(watch.get(uplink, CLIENT), None);

        netlink.keep_alive(uplink, CLIENT).await.expect("the order is taken");
        let found =
            until(&mut watch, |one| one.address == CLIENT && one.state == NeighbourState::Reachable).await;
        assert_eq!(found.mac, Some(parse_mac(CLIENT_MAC)));
        assert_eq!(watch.get(uplink, CLIENT), Some(&found));
        assert!(run("ip neigh show dev uplink0").contains(&format!("192.0.2.9 lladdr {CLIENT_MAC} ")));

        netlink.keep_alive(uplink, NOBODY).await.expect("the order is taken");
        until(&mut watch, |one| one.address == NOBODY && one.state == NeighbourState::Failed).await;
        assert!(!watch.get(uplink, NOBODY).is_some_and(|one| one.state.is_valid()));
    });
}

#[test]
fn keep_alive_confirms_a_stale_neighbour_and_leaves_a_permanent_one_alone() {
    in_namespace(|| async {
        let (uplink, _client) = topology();
        // The delay before a stale neighbour is asked is five seconds by default.
        std::fs::write("/proc/sys/net/ipv4/neigh/uplink0/delay_first_probe_time", "1").expect("it is set");
        run(&format!("ip neigh add 192.0.2.9 lladdr {CLIENT_MAC} dev uplink0 nud stale"));
        run("ip neigh add 192.0.2.66 lladdr 02:00:00:00:00:66 dev uplink0 nud permanent");
        let netlink = Netlink::open().expect("a socket");
        let mut watch = NeighbourWatch::open(&netlink, BTreeSet::from([uplink])).await.expect("a watch");
        let stale = NeighbourState::Stale;
        assert_eq!(watch.get(uplink, CLIENT).map(|one| one.state), Some(stale), "the snapshot holds it");

        netlink.keep_alive(uplink, NOBODY).await.expect("the order is taken");
        netlink.keep_alive(uplink, CLIENT).await.expect("the order is taken");
        until(&mut watch, |one| one.address == CLIENT && one.state == NeighbourState::Reachable).await;
        assert!(run("ip neigh show 192.0.2.66 dev uplink0").contains("PERMANENT"));
    });
}

#[test]
fn a_neighbours_new_mac_its_deletion_and_the_interfaces_end_are_followed() {
    in_namespace(|| async {
        let (uplink, _client) = topology();
        run("ip link add other0 type bridge");
        run("ip link set other0 up");
        let netlink = Netlink::open().expect("a socket");
        let mut watch = NeighbourWatch::open(&netlink, BTreeSet::from([uplink])).await.expect("a watch");

        run("ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:aa dev other0 nud stale");
        run("ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:0a dev uplink0 nud stale");
        let first = until(&mut watch, |one| one.address == CLIENT).await;
        assert_eq!(first.ifindex, uplink, "other interfaces are not followed");
        run("ip neigh replace 192.0.2.9 lladdr 02:00:00:00:00:0b dev uplink0 nud stale");
        until(&mut watch, |one| one.mac == Some(parse_mac("02:00:00:00:00:0b"))).await;

        run("ip neigh del 192.0.2.9 dev uplink0");
        removed(&mut watch, uplink).await;

        run("ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:0c dev uplink0 nud stale");
        until(&mut watch, |one| one.address == CLIENT).await;
        run("ip link del uplink0");
        removed(&mut watch, uplink).await;
        let error = netlink.keep_alive(uplink, CLIENT).await.expect_err("the uplink is gone");
        assert!(matches!(error, NetError::NoSuchInterface { .. }), "{error}");
    });
}

#[test]
fn a_watch_that_lost_notifications_tells_the_difference() {
    in_namespace(|| async {
        let (uplink, _client) = topology();
        run("ip neigh add 192.0.2.10 lladdr 02:00:00:00:00:10 dev uplink0 nud permanent");
        let netlink = Netlink::open().expect("a socket");
        let mut watch = NeighbourWatch::open(&netlink, BTreeSet::from([uplink])).await.expect("a watch");
        // Far more than the socket's buffer holds, while nobody reads: the kernel answers ENOBUFS.
        let mut batch = String::new();
        for turn in (0..200).cycle().take(40_000) {
            writeln!(
                batch,
                "neigh replace 192.0.2.11 lladdr 02:00:00:00:00:{turn:02x} dev uplink0 nud permanent"
            )
            .expect("a String takes all");
        }
        batch.push_str("neigh del 192.0.2.10 dev uplink0\n");
        batch.push_str("neigh replace 192.0.2.11 lladdr 02:00:00:00:00:ff dev uplink0 nud permanent\n");
        let file = std::env::temp_dir().join(format!("net-kernel-neighbours-{}", std::process::id()));
        std::fs::write(&file, batch).expect("the batch is written");
        run(&format!("ip -batch {}", file.display()));
        std::fs::remove_file(&file).expect("the batch is removed");

        let (gone, last) = (Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 11));
        let wanted = Some(parse_mac("02:00:00:00:00:ff"));
        while watch.get(uplink, gone).is_some() || watch.get(uplink, last).and_then(|one| one.mac) != wanted {
            watch.next().await.expect("events");
        }
    });
}

async fn until(watch: &mut NeighbourWatch, wanted: impl Fn(&Neighbour) -> bool) -> Neighbour {
    loop {
        if let NeighbourEvent::Updated(one) = watch.next().await.expect("events")
            && wanted(&one)
        {
            return one;
        }
    }
}

async fn removed(watch: &mut NeighbourWatch, ifindex: u32) {
    while watch.next().await.expect("events") != (NeighbourEvent::Removed { ifindex, address: CLIENT }) {}
}
