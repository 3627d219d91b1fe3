//! Whatever the state was and becomes, no packet between two steps of the plan meets a wrong entry.

mod arbitrary;
mod eips;
mod hosts;
mod interfaces;
mod room;
mod soundness;
mod world;

use std::net::Ipv4Addr;

use vip_common::tables::EipNetwork;
use vip_userspace::{
    config::Capacity,
    plan::{Contents, Desired, Indexes, Resting, Site, compile, diff},
};

use crate::world::World;

const CAPACITY: Capacity = Capacity { ports: 12, vips: 8, eips: 8, subnets: 6, hosts: 5 };

/// The host that the plan is for.
fn site(world: &World) -> Site {
    let network = EipNetwork {
        network: Ipv4Addr::new(203, 0, 113, 0).into(),
        mask: Ipv4Addr::new(255, 255, 255, 254).into(),
        gateway: Ipv4Addr::new(203, 0, 113, 1).into(),
        ..EipNetwork::default()
    };
    Site {
        host: "hv1".to_owned(),
        networks: [network].into(),
        interfaces: world.interfaces.clone(),
        tunnel_mtu: 1450,
        // By a route of its own.
        tunnel_mtus: [(Ipv4Addr::new(172, 31, 0, 3), 1350)].into(),
    }
}

fn desire(world: &World, contents: &Contents, resting: &Resting) -> Desired {
    compile(&world.state, &site(world), &Indexes::of(contents, &CAPACITY, resting))
}

fn carry_out(contents: &mut Contents, desired: &Desired) {
    for step in diff(contents, &desired.contents) {
        contents.apply(&step);
    }
}

/// The desired contents once everything that had to rest has rested.
fn reach(world: &World, contents: &mut Contents) -> Desired {
    for _ in 0..2 {
        let desired = desire(world, contents, &Resting::default());
        carry_out(contents, &desired);
    }
    desire(world, contents, &Resting::default())
}
