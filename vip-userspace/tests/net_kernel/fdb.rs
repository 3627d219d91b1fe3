//! Bridge forwarding entries.

use vip_userspace::net::{NetError, Netlink};

use crate::lab::{ifindex, in_namespace, parse_mac, run};

const GUEST: &str = "02:00:00:00:07:f7";

fn entries(port: &str) -> Vec<String> {
    run(&format!("bridge fdb show brport {port}"))
        .lines()
        .filter(|line| line.starts_with(GUEST))
        .map(str::to_owned)
        .collect()
}

#[test]
fn an_entry_is_static_moves_between_ports_and_goes_once() {
    in_namespace(|| async {
        run("ip link add br0 type bridge");
        for port in ["tap0", "tap1"] {
            run(&format!("ip tuntap add {port} mode tap"));
            run(&format!("ip link set {port} master br0 up"));
        }
        let netlink = Netlink::open().expect("a socket");
        let (first, second, mac) = (ifindex("tap0"), ifindex("tap1"), parse_mac(GUEST));

        netlink.fdb_replace(first, mac).await.expect("the entry is made");
        netlink.fdb_replace(first, mac).await.expect("a second time changes nothing");
        let listed = entries("tap0");
        assert!(
            listed.iter().any(|line| line.contains("master br0") && line.contains("static")),
            "{listed:?}"
        );

        netlink.fdb_replace(second, mac).await.expect("the entry moves");
        assert_eq!(entries("tap0"), Vec::<String>::new());
        assert!(!entries("tap1").is_empty());

        assert!(!netlink.fdb_delete(first, mac).await.expect("an answer"), "it is on the other port");
        assert!(netlink.fdb_delete(second, mac).await.expect("an answer"));
        assert!(!netlink.fdb_delete(second, mac).await.expect("an answer"), "it is gone already");
        assert_eq!(entries("tap1"), Vec::<String>::new());
    });
}

#[test]
fn an_interface_in_no_bridge_is_refused() {
    in_namespace(|| async {
        run("ip tuntap add tap0 mode tap");
        let netlink = Netlink::open().expect("a socket");
        let tap = ifindex("tap0");
        let error = netlink.fdb_replace(tap, parse_mac(GUEST)).await.expect_err("no bridge");
        assert!(matches!(error, NetError::RefusedOn { ifindex, .. } if ifindex == tap), "{error}");
        assert!(!netlink.fdb_delete(tap, parse_mac(GUEST)).await.expect("nothing to delete"));
        let error = netlink.fdb_replace(4711, parse_mac(GUEST)).await.expect_err("no interface");
        assert!(matches!(error, NetError::NoSuchInterface { .. }), "{error}");
        assert!(!netlink.fdb_delete(4711, parse_mac(GUEST)).await.expect("nothing to delete"));
    });
}
