//! Routes and the host's own addresses.

use std::{collections::BTreeSet, net::Ipv4Addr};

use vip_userspace::net::{Netlink, Refusal, Route, RouteTable, RouteWatch, Unsupported};

use crate::lab::{ifindex, in_namespace, run};

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn lookup(table: &RouteTable, destination: &str) -> Option<Route> {
    table.lookup(ip(destination)).map(|(_, route)| route)
}

/// An uplink that is a bridge member, and an interface beside it.
fn topology() -> BTreeSet<u32> {
    run("ip link add uplink0 type veth peer name wire0");
    run("ip link add other0 type veth peer name wire1");
    run("ip link add br0 type bridge");
    run("ip link set uplink0 master br0");
    for name in ["uplink0", "wire0", "other0", "wire1", "br0"] {
        run(&format!("ip link set {name} up"));
    }
    run("ip addr add 192.0.2.5/24 dev br0");
    run("ip addr add 10.0.0.5/24 dev other0");
    BTreeSet::from([ifindex("uplink0"), ifindex("br0")])
}

#[test]
fn a_namespace_without_any_address_has_an_empty_table() {
    std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let table = runtime.block_on(async {
            Netlink::open().expect("a socket").routes(&BTreeSet::new()).await.expect("a table")
        });
        assert_eq!(table, RouteTable::default());
    })
    .join()
    .expect("the test holds");
}

#[test]
fn each_kind_of_route_is_reduced_to_what_the_forwarder_needs() {
    in_namespace(|| async {
        let uplink = topology();
        let bridge = ifindex("br0");
        run("ip route add default via 192.0.2.1 metric 200");
        run("ip route add default via 10.0.0.1 metric 300");
        run("ip route add 198.51.100.0/24 nexthop via 10.0.0.1 nexthop via 192.0.2.2 nexthop via 192.0.2.3");
        run("ip route add unreachable 10.1.0.0/16");
        run("ip route add blackhole 10.2.0.0/16");
        run("ip route add prohibit 10.3.0.0/16");
        run("ip route add throw 10.4.0.0/16");
        run("ip route add 10.5.0.0/16 via 192.0.2.9 table 100");
        run("ip nexthop add id 7 via 192.0.2.7 dev br0");
        run("ip route add 10.6.0.0/16 nhid 7");
        run("ip -6 addr add fd00::5/64 dev br0");
        run("ip route add 10.7.0.0/16 via inet6 fd00::1 dev br0");
        let netlink = Netlink::open().expect("a socket");
        let table = netlink.routes(&uplink).await.expect("a table");

        assert_eq!(lookup(&table, "192.0.2.77"), Some(Route::OnLink { oif: bridge }));
        assert_eq!(lookup(&table, "10.0.0.77"), Some(Route::Elsewhere));
        assert_eq!(lookup(&table, "8.8.8.8"), Some(Route::Via { oif: bridge, gateway: ip("192.0.2.1") }));
        assert_eq!(
            lookup(&table, "198.51.100.1"),
            Some(Route::Via { oif: bridge, gateway: ip("192.0.2.2") })
        );
        assert_eq!(lookup(&table, "10.1.0.1"), Some(Route::Refused(Refusal::Unreachable)));
        assert_eq!(lookup(&table, "10.2.0.1"), Some(Route::Refused(Refusal::Blackhole)));
        assert_eq!(lookup(&table, "10.3.0.1"), Some(Route::Refused(Refusal::Prohibit)));
        assert_eq!(lookup(&table, "10.4.0.1"), Some(Route::Refused(Refusal::Throw)));
        assert_eq!(
            lookup(&table, "10.5.0.1"),
            Some(Route::Via { oif: bridge, gateway: ip("192.0.2.1") }),
            "other tables are not followed"
        );
        assert_eq!(lookup(&table, "10.6.0.1"), Some(Route::Via { oif: bridge, gateway: ip("192.0.2.7") }));
        assert_eq!(lookup(&table, "10.7.0.1"), Some(Route::Unsupported(Unsupported::Ipv6Gateway)));

        for held in ["192.0.2.5", "10.0.0.5", "127.0.0.1", "127.1.2.3"] {
            assert!(table.holds_address(ip(held)), "{held}");
            assert!(netlink.holds_address(ip(held)).await.expect("an answer"), "{held}");
        }
        assert!(!table.holds_address(ip("192.0.2.1")));
    });
}

#[test]
fn routes_and_addresses_are_followed_also_where_the_kernel_takes_routes_away_silently() {
    in_namespace(|| async {
        let uplink = topology();
        let bridge = ifindex("br0");
        let netlink = Netlink::open().expect("a socket");
        let mut watch = RouteWatch::open(&netlink, uplink).await.expect("a watch");
        assert_eq!(lookup(watch.table(), "8.8.8.8"), None);

        run("ip route add default via 192.0.2.1");
        let via = |gateway| Some(Route::Via { oif: bridge, gateway: ip(gateway) });
        until(&mut watch, |table| lookup(table, "8.8.8.8") == via("192.0.2.1")).await;

        run("ip route replace default via 192.0.2.2");
        until(&mut watch, |table| lookup(table, "8.8.8.8") == via("192.0.2.2")).await;

        run("ip addr add 203.0.113.9/32 dev other0");
        until(&mut watch, |table| table.holds_address(ip("203.0.113.9"))).await;

        // No RTM_DELROUTE is sent for any of these.
        run("ip link set br0 down");
        until(&mut watch, |table| lookup(table, "8.8.8.8").is_none() && lookup(table, "192.0.2.9").is_none())
            .await;

        run("ip link set br0 up");
        until(&mut watch, |table| lookup(table, "192.0.2.9") == Some(Route::OnLink { oif: bridge })).await;
    });
}

#[test]
fn a_multipath_route_moves_on_when_its_interface_dies() {
    in_namespace(|| async {
        run("ip link add uplink0 type veth peer name wire0");
        run("ip link add uplink1 type veth peer name wire1");
        for name in ["uplink0", "wire0", "uplink1", "wire1"] {
            run(&format!("ip link set {name} up"));
        }
        run("ip addr add 192.0.2.5/24 dev uplink0");
        run("ip addr add 198.51.100.5/24 dev uplink1");
        run("ip route add default nexthop via 192.0.2.1 nexthop via 198.51.100.1");
        let (first, second) = (ifindex("uplink0"), ifindex("uplink1"));
        let netlink = Netlink::open().expect("a socket");
        let mut watch = RouteWatch::open(&netlink, BTreeSet::from([first, second])).await.expect("a watch");
        let via = |oif, gateway| Some(Route::Via { oif, gateway: ip(gateway) });
        assert_eq!(lookup(watch.table(), "8.8.8.8"), via(first, "192.0.2.1"));

        run("ip link set uplink0 down");
        until(&mut watch, |table| lookup(table, "8.8.8.8") == via(second, "198.51.100.1")).await;
    });
}

#[test]
fn an_uplink_that_joins_a_bridge_is_looked_at_anew() {
    in_namespace(|| async {
        let uplink = topology();
        let netlink = Netlink::open().expect("a socket");
        let member = BTreeSet::from([ifindex("uplink0")]);
        let mut watch = RouteWatch::open(&netlink, member).await.expect("a watch");
        assert_eq!(lookup(watch.table(), "192.0.2.9"), Some(Route::Elsewhere));
        watch.set_uplink(uplink);
        until(&mut watch, |table| lookup(table, "192.0.2.9") == Some(Route::OnLink { oif: ifindex("br0") }))
            .await;
    });
}

#[test]
fn policy_rules_are_counted_because_they_are_not_followed() {
    in_namespace(|| async {
        let netlink = Netlink::open().expect("a socket");
        assert_eq!(netlink.extra_rules().await.expect("the rules"), 0);
        run("ip rule add from 192.0.2.0/24 lookup 100");
        run("ip rule add fwmark 7 lookup main");
        assert_eq!(netlink.extra_rules().await.expect("the rules"), 2);
    });
}

/// Waits until the table is as wanted.
async fn until(watch: &mut RouteWatch, wanted: impl Fn(&RouteTable) -> bool) {
    while !wanted(watch.table()) {
        let before = watch.next().await.expect("a table");
        assert_ne!(&before, watch.table(), "only another table is reported");
    }
}
