//! How to look around in a lab that stays up.

use std::path::Path;

use anstream::println;

use super::{
    role::Role,
    stage::{EIP, Stage, VIP, VIP_ID},
    style::{BOLD, DIM},
};
use crate::{Binaries, Netns};

/// Prints what to try, in another terminal.
pub(super) fn print(stage: &Stage, binaries: &Binaries) {
    let heading = |text: &str| println!("\n  {DIM}# {text}{DIM:#}");
    let (vipctl, socket) = (binaries.vipctl.display(), stage.vipd.socket());
    let host = enter(stage.host.netns());
    let client = enter(stage.outside.netns());

    println!(
        "\n{BOLD}The lab stays up. Ctrl-C ends and removes it.{BOLD:#} Meanwhile, as root in another terminal:"
    );
    heading("what the operator sees");
    println!("  export VIPCTL_SOCKET={}", socket.display());
    println!("  {vipctl} get vips");
    println!("  {vipctl} get vips {VIP_ID} -o json");
    println!("  {vipctl} history {VIP_ID}");
    println!("  {vipctl} status");
    heading("the page, as the client gets it");
    println!("  {client} curl -s http://{EIP}/");
    println!("  while sleep 0.2; do {client} curl -s -m 1 http://{EIP}/; done");
    for role in Role::ALL {
        let guest = enter(stage.guest(role).netns());
        heading(&format!("{}: its addresses (who has {VIP}?), and a shell in it", role.name()));
        println!("  {guest} ip -brief address show dev eth0");
        println!("  {guest} sh");
    }
    heading(
        "freeze the master's keepalived: the VIP goes to the other guest; let it go on: the VIP comes back",
    );
    let pid = keepalived_pid(stage.host.netns().directory());
    println!("  kill -STOP $(cat {pid})");
    println!("  kill -CONT $(cat {pid})");
    heading("the host: what passes the guests' interfaces (if tcpdump is there), and a shell");
    println!("  {host} tcpdump -n -i tap1 arp or proto 112");
    println!("  {host} sh");
    heading("change what vipd is told: it takes the file up when it is saved");
    println!("  {}", stage.vipd.state_file().display());
    println!("\n  {DIM}logs: {}{DIM:#}", stage.host.netns().directory().display());
}

fn enter(netns: &Netns) -> String {
    format!("nsenter --net={}", netns.path().display())
}

/// The pid file of the preferred guest's VRRP process, which the lab's directory holds.
fn keepalived_pid(directory: &Path) -> String {
    directory.join(format!("{}-keepalived.vrrp.pid", Role::Master.name())).display().to_string()
}
