//! `vip_userspace::net` against the real kernel, in fresh network namespaces; the other side is always iproute2's or
//! ethtool's own view. Needs root: `cargo test -p vip-userspace --features kernel --test net_kernel`.

mod bpffs;
mod fdb;
mod lab;
mod links;
mod neighbours;
mod packets;
mod routes;
mod xdp_features;
