//! The fuzz target `uplink`: see [`vip_fuzz`].
#![no_main]

vip_fuzz::target!(vip_fuzz::Target::Uplink);
