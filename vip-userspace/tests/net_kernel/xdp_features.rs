//! What XDP can do with an interface.

use vip_lab::{NEEDS_XDP_FEATURES, skip};
use vip_userspace::net::{NetError, Netdev, XdpFeatureWatch, XdpFeatures};

use crate::lab::{Peer, ifindex, in_namespace, run};

#[test]
fn a_veth_takes_redirected_frames_exactly_while_the_guests_end_has_gro() {
    in_namespace(|| async {
        let guest = Peer::new();
        run(&format!("ip link add host0 type veth peer name eth0 netns {}", guest.pid()));
        run("ip link set host0 up");
        guest.run("ip link set eth0 up");
        let host = ifindex("host0");
        let netdev = Netdev::open().await.expect("a socket");
        let Some(features) = netdev.xdp_features(host).await.expect("an answer") else {
            skip("a_veth_takes_redirected_frames_exactly_while_the_guests_end_has_gro", NEEDS_XDP_FEATURES);
            return;
        };
        let mut watch = XdpFeatureWatch::open(&netdev).await.expect("a watch");

        assert!(features.contains(XdpFeatures::BASIC | XdpFeatures::REDIRECT), "{features}");
        assert!(!features.contains(XdpFeatures::NDO_XMIT), "{features}");
        assert_eq!(watch.features().get(&host), Some(&features));

        guest.run("ethtool -K eth0 gro on");
        until(&mut watch, host, |features| features.contains(XdpFeatures::NDO_XMIT)).await;
        assert!(
            netdev
                .xdp_features(host)
                .await
                .expect("an answer")
                .is_some_and(|now| now.contains(XdpFeatures::NDO_XMIT))
        );

        guest.run("ethtool -K eth0 gro off");
        until(&mut watch, host, |features| !features.contains(XdpFeatures::NDO_XMIT)).await;
    });
}

#[test]
fn a_tap_takes_redirected_frames_and_its_end_is_told() {
    in_namespace(|| async {
        let netdev = Netdev::open().await.expect("a socket");
        if netdev.xdp_features(ifindex("lo")).await.expect("an answer").is_none() {
            skip("a_tap_takes_redirected_frames_and_its_end_is_told", NEEDS_XDP_FEATURES);
            return;
        }
        let mut watch = XdpFeatureWatch::open(&netdev).await.expect("a watch");
        run("ip tuntap add tap0 mode tap");
        let tap = ifindex("tap0");
        until(&mut watch, tap, |features| features.contains(XdpFeatures::NDO_XMIT)).await;
        run("ip tuntap del tap0 mode tap");
        loop {
            let events = watch.next().await.expect("events");
            if events.iter().any(|event| event.ifindex == tap && event.features.is_none()) {
                break;
            }
        }
        let error = netdev.xdp_features(tap).await.expect_err("the tap is gone");
        assert!(matches!(error, NetError::NoSuchInterface { .. }), "{error}");
    });
}

async fn until(watch: &mut XdpFeatureWatch, ifindex: u32, wanted: impl Fn(XdpFeatures) -> bool) {
    while !watch
        .next()
        .await
        .expect("events")
        .iter()
        .any(|event| event.ifindex == ifindex && event.features.is_some_and(&wanted))
    {}
}
