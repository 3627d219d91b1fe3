//! The lab itself: what it makes works, and nothing of it stays behind.
#![cfg(feature = "kernel")]

use std::{
    env,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::fs::PermissionsExt as _,
    panic,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Announcement, Binaries, EipReach, Guest, GuestConfig, Host, IperfOptions, IperfServer, Lab, LogMark, Mac,
    Nginx, RawSender, Signal, Tcpdump, UNDERLAY_HOST, UNDERLAY_OUTSIDE, Vipd, VipdConfig,
    capture::Capture,
    frame::{self, Arp},
    http,
    keepalived::{Keepalived, KeepalivedConfig, State},
    poll_until,
    stream::UdpStream,
};

const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 246);
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 247);
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 248);
const SHORT: Duration = Duration::from_secs(10);
const ELECTION: Duration = Duration::from_secs(30);

/// Two guests on a plain Linux bridge.
fn bridged_pair(lab: &Lab) -> Result<(Host, Guest, Guest)> {
    let host = lab.add_host("hv1")?;
    host.add_bridge("br0", Some("192.168.4.1/22".parse()?))?;
    let first =
        host.add_guest(&GuestConfig::new("first", "tap0", "02:00:00:00:07:f7", "192.168.7.247/22")?)?;
    let second =
        host.add_guest(&GuestConfig::new("second", "tap1", "02:00:00:00:07:f8", "192.168.7.248/22")?)?;
    host.enslave("tap0", "br0")?;
    host.enslave("tap1", "br0")?;
    Ok((host, first, second))
}

/// Everything on this machine that carries the name of a lab.
fn traces(lab: &str) -> Vec<PathBuf> {
    let places = [PathBuf::from("/run/netns"), PathBuf::from("/sys/fs/bpf"), env::temp_dir()];
    let entries = places.iter().filter_map(|place| place.read_dir().ok()).flatten().flatten();
    let carries = |name: &str| name == lab || name.starts_with(&format!("{lab}-"));
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(carries))
        .map(|entry| entry.path())
        .collect()
}

fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

fn wait_until_ended(pid: u32) -> Result<()> {
    poll_until(SHORT, &format!("process {pid} to end"), || ended(pid).then_some(()))
}

#[test]
fn a_lab_leaves_nothing_behind_when_it_is_dropped() {
    let lab = Lab::new().expect("root");
    let name = lab.name();
    let host = lab.add_host("hv1").expect("a host");
    let outside = host.add_outside(EipReach::OnLink).expect("an outside client");
    let sleeper = outside.netns().spawn("sleep", &["sleep", "1000"]).expect("a process");
    let pid = sleeper.id();
    // Namespaces of the host and the client, the pin directory, the lab's directory.
    assert_eq!(traces(&name).len(), 4, "{:?}", traces(&name));
    assert!(!ended(pid));
    drop(lab);
    assert_eq!(traces(&name), Vec::<PathBuf>::new());
    wait_until_ended(pid).expect("processes end with their lab");
    drop(sleeper);
}

#[test]
fn a_lab_that_panics_leaves_only_its_files() {
    let mut name = String::new();
    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        Lab::run(|lab| {
            name = lab.name();
            lab.add_host("hv1")?.netns().spawn("echo", &["echo", "what the log says"])?.wait(SHORT)?;
            anyhow::bail!("the body's error")
        });
    }));
    let message = panicked.expect_err("the body failed");
    assert_eq!(message.downcast_ref::<String>().map(String::as_str), Some("the body's error"));
    assert_eq!(traces(&name), Vec::<PathBuf>::new());
    let kept = env::temp_dir().join("vip-lab-kept").join(&name);
    assert!(kept.join("hv1-echo.log").is_file(), "no log in {}", kept.display());
    std::fs::remove_dir_all(kept).expect("it is ours");
}

/// Run by the two tests below in a process of its own, which is then killed.
#[test]
#[ignore = "never ends by itself: other tests run and kill it"]
fn a_lab_that_waits_to_be_killed() {
    Lab::run(|lab| {
        let sleeper = lab.add_host("hv1")?.netns().spawn("sleep", &["sleep", "1000"])?;
        println!("{} {}", lab.name(), sleeper.id());
        thread::sleep(Duration::from_secs(60));
        Ok(())
    });
}

/// Starts [`a_lab_that_waits_to_be_killed`], sends it a signal when its lab stands, and waits until it has ended.
/// Gives the lab's name and the process id of the sleeper in it.
fn kill_a_lab(signal: Signal) -> (String, u32) {
    let mut command = Command::new(env::current_exe().expect("this test has a file"));
    command.args(["--ignored", "--exact", "--nocapture", "a_lab_that_waits_to_be_killed"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("this test starts again");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let prefix = format!("vip-{}-", child.id());
    let named = lines.map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once(&prefix)?;
        let (name, sleeper) = rest.split_once(' ')?;
        Some((format!("{prefix}{name}"), sleeper.trim().parse::<u32>().ok()?))
    });
    let (name, sleeper) = named.expect("the lab names itself");
    assert!(!traces(&name).is_empty());
    // The shell's own kill: a small system has no program of that name.
    let kill = format!("kill -{} {}", signal as i32, child.id());
    let sent = Command::new("sh").args(["-c", &kill]).status();
    assert!(sent.is_ok_and(|status| status.success()));
    let status = child.wait().expect("our child");
    assert!(!status.success(), "it was killed");
    (name, sleeper)
}

#[test]
fn a_lab_whose_process_was_killed_is_swept_up_by_the_next() {
    let (name, sleeper) = kill_a_lab(Signal::SIGKILL);
    wait_until_ended(sleeper).expect("processes end with the one that started them");
    let next = Lab::new().expect("root");
    assert_eq!(traces(&name), Vec::<PathBuf>::new());
    drop(next);
}

#[test]
fn a_lab_is_removed_on_ctrl_c() {
    let (name, sleeper) = kill_a_lab(Signal::SIGINT);
    assert_eq!(traces(&name), Vec::<PathBuf>::new());
    wait_until_ended(sleeper).expect("processes end with their lab");
}

#[test]
fn labs_do_not_see_each_other() {
    Lab::run(|one| {
        let other = Lab::new()?;
        ensure!(one.name() != other.name() && one.directory() != other.directory(), "the labs share a name");
        one.add_host("hv1")?.add_bridge("br0", None)?;
        let shown = other.add_host("hv1")?.netns().ip("-brief link show")?;
        ensure!(!shown.contains("br0"), "a bridge of another lab is here: {shown}");
        Ok(())
    });
}

#[test]
fn a_command_that_hangs_is_killed() {
    Lab::run(|lab| {
        let netns = lab.add_netns("a")?;
        let error = netns.run_within(Duration::from_millis(300), &["sh", "-c", "echo $$; exec sleep 1000"]);
        let text = format!("{:#}", error.err().context("it ended")?);
        let pid = text.split_whitespace().filter_map(|word| word.parse().ok()).next_back();
        wait_until_ended(pid.with_context(|| format!("no process id in {text}"))?)
    });
}

#[test]
fn the_outside_client_reaches_the_host_and_routes_eips_as_asked() {
    Lab::run(|lab| {
        for (name, reach, route) in [
            ("on-link", EipReach::OnLink, "203.0.113.10 dev eth0 src 203.0.113.254"),
            ("routed", EipReach::Routed, "203.0.113.10 via 198.51.100.1 dev eth0 src 198.51.100.7"),
        ] {
            let outside = lab.add_host(name)?.add_outside(reach)?;
            let report = outside.netns().ping(UNDERLAY_HOST, 2)?;
            ensure!((report.sent, report.received) == (2, 2), "{report:?}");
            let shown = outside.netns().ip("route get 203.0.113.10")?;
            ensure!(shown.contains(route), "{shown}");
        }
        Ok(())
    });
}

#[test]
fn a_guest_comes_back_after_it_was_unplugged() {
    Lab::run(|lab| {
        let (host, first, second) = bridged_pair(lab)?;
        ensure!(first.netns().ping(SECOND, 1)?.received == 1, "no reply before");
        second.unplug()?;
        ensure!(first.netns().ping(SECOND, 1)?.received == 0, "an unplugged guest replied");
        second.plug()?;
        host.enslave("tap1", "br0")?;
        ensure!(first.netns().ping(SECOND, 2)?.received > 0, "no reply after");
        second.add_vip_address(VIP)?;
        ensure!(second.has_address(VIP)? && !first.has_address(VIP)?, "the VIP is not where it was put");
        second.remove_vip_address(VIP)?;
        ensure!(!second.has_address(VIP)? && second.has_address(SECOND)?, "the wrong address was removed");
        Ok(())
    });
}

#[test]
fn a_capture_sees_what_is_sent_and_when() {
    Lab::run(|lab| {
        let (host, first, second) = bridged_pair(lab)?;
        let capture = Capture::start(host.netns(), "tap0")?;
        let other = Capture::start(second.netns(), "eth0")?;
        let mut tcpdump = Tcpdump::start(host.netns(), "tap0")?;
        first.add_vip_address(VIP)?;

        let before = std::time::Instant::now();
        first.arping(Announcement::Request, VIP)?;
        first.arping(Announcement::Reply, VIP)?;
        let after = std::time::Instant::now();
        for arp in [Arp::gratuitous_request(first.mac(), VIP), Arp::gratuitous_reply(first.mac(), VIP)] {
            for capture in [&capture, &other] {
                let seen = capture.wait_for(SHORT, &format!("{arp:?}"), |frame| {
                    frame.arp().is_some_and(|seen| seen.operation == arp.operation && seen.sender == VIP)
                })?;
                ensure!(
                    seen.announces(VIP) && seen.source() == Some(first.mac()) && !seen.outgoing,
                    "{seen:?}"
                );
                ensure!(before < seen.at && seen.at < after, "seen at a time when it was not sent");
            }
        }

        let sender = RawSender::new(first.netns(), "eth0")?;
        let forged = Mac([2, 0, 0, 0, 0, 0x66]);
        sender.send(&Arp::probe(forged, SECOND).frame(forged, Mac::BROADCAST))?;
        sender.send(&frame::udp((forged, second.mac()), (VIP, 5), (SECOND, 6), b"forged")?)?;
        capture.wait_for(SHORT, "a forged datagram", |frame| {
            frame.source() == Some(forged) && frame.udp() == Some((5, 6, b"forged"))
        })?;
        let probes = capture.count(|frame| frame.arp() == Some(Arp::probe(forged, SECOND)))?;
        ensure!(probes == 1, "{probes} probes");

        tcpdump.stop()?;
        let file = tcpdump.file().to_str().context("UTF-8")?;
        let text = host.netns().check(&["tcpdump", "-n", "-e", "-r", file])?;
        ensure!(text.contains("02:00:00:00:00:66"), "tcpdump did not see the forged frames: {text}");
        Ok(())
    });
}

#[test]
fn a_capture_loses_nothing_of_twenty_thousand_frames_a_second() {
    Lab::run(|lab| {
        let (_host, first, second) = bridged_pair(lab)?;
        let capture = Capture::start(second.netns(), "eth0")?;
        let to = SocketAddrV4::new(SECOND, 9000);
        let report = UdpStream::start(first.netns(), to, 20_000, Duration::from_secs(1), &[second.netns()])?
            .finish()?;
        let seen = capture.count(|frame| frame.udp().is_some_and(|(_, port, _)| port == 9000))?;
        ensure!(seen == report.sent.len(), "{seen} of {} frames were captured", report.sent.len());
        Ok(())
    });
}

#[test]
fn a_capture_that_has_lost_frames_says_so_while_more_of_them_come() {
    /// More than a capture's socket has room for, of the longest frames.
    const TOO_MANY: usize = 4000;
    Lab::run(|lab| {
        let (host, first, second) = bridged_pair(lab)?;
        for (netns, interface) in [(host.netns(), "tap0"), (first.netns(), "eth0")] {
            netns.ip(&format!("link set dev {interface} mtu 65000"))?;
        }
        let opened = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&opened);
        // Its reader stands still, and keeps nothing.
        let capture = Capture::start_keeping(first.netns(), "eth0", move |_| {
            while !theirs.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            false
        })?;
        let sender = RawSender::new(first.netns(), "eth0")?;
        let frame = |length: usize| {
            frame::udp((first.mac(), second.mac()), (FIRST, 9000), (SECOND, 9000), &vec![0; length])
        };
        let (long, short) = (frame(60_000)?, frame(1)?);
        for _ in 0..TOO_MANY {
            sender.send(&long)?;
        }
        ensure!(capture.frames()?.is_empty(), "the reader did not stand still");
        opened.store(true, Ordering::Relaxed);
        let said = poll_until(SHORT, "the capture to miss what it lost", || {
            sender.send(&short).ok()?;
            capture.frames().err()
        })?;
        ensure!(said.to_string().contains("lost"), "{said:#}");
        Ok(())
    });
}

#[test]
fn a_stream_over_a_plain_cable_arrives_whole_in_order_and_once() {
    Lab::run(|lab| {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(EipReach::OnLink)?;
        let to = SocketAddrV4::new(UNDERLAY_OUTSIDE, 9000);
        let time = Duration::from_secs(2);
        let stream = UdpStream::start(host.netns(), to, 10_000, time, &[outside.netns(), host.netns()])?;
        poll_until(SHORT, "the first datagrams", || (stream.received(outside.netns()) > 100).then_some(()))?;
        let report = stream.finish()?;
        ensure!(report.lost().is_empty() && report.duplicates() == 0, "lost {:?}", report.lost());
        ensure!(report.sent.len() == 20_000, "{} datagrams", report.sent.len());
        ensure!(report.receiver(host.netns())?.arrivals.is_empty(), "the sender's own namespace received");
        let arrivals = &report.receiver(outside.netns())?.arrivals;
        ensure!(arrivals.is_sorted_by_key(|arrival| arrival.number), "out of order");
        for (arrival, sent) in arrivals.iter().zip(&report.sent) {
            ensure!(arrival.at > *sent, "datagram {} arrived before it was sent", arrival.number);
        }
        Ok(())
    });
}

#[test]
fn a_stream_to_nobody_is_lost_whole() {
    Lab::run(|lab| {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(EipReach::OnLink)?;
        let to = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 99), 9000);
        let report =
            UdpStream::start(host.netns(), to, 1000, Duration::from_millis(300), &[outside.netns()])?
                .finish()?;
        ensure!(
            report.lost().len() == report.sent.len(),
            "{} arrived",
            report.sent.len() - report.lost().len()
        );
        Ok(())
    });
}

#[test]
fn unbounded_traffic_is_refused() {
    Lab::run(|lab| {
        let netns = lab.add_netns("a")?;
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9000);
        for (rate, seconds) in [(0, 1), (1_000_000, 1), (1, 100_000)] {
            let refused = UdpStream::start(&netns, to, rate, Duration::from_secs(seconds), &[]);
            ensure!(refused.is_err(), "{rate} a second for {seconds} s was taken");
        }
        Ok(())
    });
}

#[test]
fn iperf_measures_both_directions() {
    Lab::run(|lab| {
        let (_host, first, second) = bridged_pair(lab)?;
        let server = IperfServer::start(second.netns(), 5201)?;
        for reverse in [false, true] {
            let options =
                IperfOptions { address: SECOND, port: server.port(), time: Duration::from_secs(1), reverse };
            let report = first.netns().iperf(options)?;
            ensure!(report.bits_per_second > 0.0, "{report:?}");
        }
        server.stop()
    });
}

#[test]
fn a_sysctl_changes_its_own_namespace_only() {
    Lab::run(|lab| {
        let path = Path::new("/proc/sys/net/ipv4/ip_forward");
        let before = std::fs::read_to_string(path)?;
        let host = lab.add_host("hv1")?;
        host.enable_forwarding()?;
        ensure!(
            host.netns().check(&["cat", "/proc/sys/net/ipv4/ip_forward"])?.trim() == "1",
            "it was not set"
        );
        ensure!(std::fs::read_to_string(path)? == before, "the machine's own was changed");
        ensure!(host.netns().sysctl("kernel/printk", "1").is_err(), "a sysctl of the machine was taken");
        Ok(())
    });
}

#[test]
fn the_health_script_repairs_a_crash_and_reports_a_stop() {
    Lab::run(|lab| {
        let (_host, first, second) = bridged_pair(lab)?;
        let nginx = Nginx::start(&first, "this is first\n")?;
        let script = nginx.health_script();
        let healthy = || -> Result<bool> {
            let script = script.to_str().context("UTF-8")?;
            Ok(first.netns().run(&[script])?.status.success())
        };
        let server = SocketAddrV4::new(FIRST, 80);
        let page = http::get(second.netns(), server, "/any", SHORT)?;
        ensure!((page.status, page.body.as_str()) == (200, "this is first\n"), "{page:?}");
        ensure!(healthy()?, "it was healthy");
        nginx.crash()?;
        ensure!(http::get(second.netns(), server, "/", SHORT).is_err(), "a dead server answered");
        ensure!(healthy()?, "the script did not repair it");
        ensure!(http::get(second.netns(), server, "/", SHORT)?.status == 200, "it did not come back");
        nginx.stop()?;
        ensure!(!healthy()?, "a stopped server was healthy");
        nginx.begin()?;
        ensure!(healthy()?, "it was started again");
        Ok(())
    });
}

#[test]
fn a_keepalived_pair_on_a_bridge_elects_the_master_and_fails_over_and_back() {
    Lab::run(|lab| {
        let (host, first, second) = bridged_pair(lab)?;
        let vip = "192.168.7.246/22".parse()?;
        let pages = [Nginx::start(&first, "first\n")?, Nginx::start(&second, "second\n")?];
        let [on_first, on_second] = &pages;
        let capture = Capture::start(second.netns(), "eth0")?;
        let master =
            KeepalivedConfig::cloudpods("first", State::Master, vip).with_check(on_first.health_script());
        let backup =
            KeepalivedConfig::cloudpods("second", State::Backup, vip).with_check(on_second.health_script());
        let mut one = Keepalived::start(&first, &master)?;
        let two = Keepalived::start(&second, &backup)?;
        one.wait_for_state(LogMark::default(), State::Master, ELECTION)?;
        two.wait_for_state(LogMark::default(), State::Backup, ELECTION)?;
        capture.wait_for(SHORT, "an advertisement by multicast", |frame| {
            frame.ipv4().is_some_and(|ip| {
                ip.protocol == 112 && ip.ttl == 255 && ip.destination == Ipv4Addr::new(224, 0, 0, 18)
            })
        })?;
        let serves = |page: &str| {
            poll_until(ELECTION, &format!("the page of {page}"), || {
                let fetched =
                    http::get(host.netns(), SocketAddrV4::new(VIP, 80), "/", Duration::from_secs(1));
                fetched.is_ok_and(|fetched| fetched.body.trim() == page).then_some(())
            })
        };
        serves("first")?;

        // The service fails, the machine does not.
        let mark = two.log().mark();
        on_first.stop()?;
        two.wait_for_state(mark, State::Master, ELECTION)?;
        capture.wait_for(SHORT, "the new master's announcement", |frame| {
            frame.outgoing && frame.announces(VIP) && frame.source() == Some(second.mac())
        })?;
        serves("second")?;
        ensure!(second.has_address(VIP)?, "the new master has no VIP");

        // Preemption when the service is back.
        let mark = one.log().mark();
        on_first.begin()?;
        one.wait_for_state(mark, State::Master, ELECTION)?;
        serves("first")?;

        // Killed without a word: the VIP stays on the dead one, and the other takes over.
        let mark = two.log().mark();
        one.kill9()?;
        two.wait_for_state(mark, State::Master, ELECTION)?;
        ensure!(first.has_address(VIP)? && second.has_address(VIP)?, "a killed keepalived cleaned up");
        serves("second")?;
        ensure!(two.state().map(|(state, _)| state) == Some(State::Master), "{:?}", two.transitions());
        Ok(())
    });
}

#[test]
fn a_fetcher_tells_answers_from_failures() {
    Lab::run(|lab| {
        let (_host, first, second) = bridged_pair(lab)?;
        let nginx = Nginx::start(&first, "here\n")?;
        let server = SocketAddrV4::new(FIRST, 80);
        let (interval, limit) = (Duration::from_millis(20), Duration::from_millis(500));
        let fetcher = http::Fetcher::start(second.netns(), server, "/", interval, limit)?;
        poll_until(SHORT, "answers", || (fetcher.fetches().len() >= 5).then_some(()))?;
        nginx.stop()?;
        let seen = fetcher.fetches().len();
        poll_until(SHORT, "failures", || {
            fetcher.fetches().iter().skip(seen + 1).any(|fetch| !fetch.succeeded()).then_some(())
        })?;
        let all = fetcher.stop()?;
        ensure!(all.iter().take(5).all(http::Fetch::succeeded), "{all:?}");
        ensure!(all.last().is_some_and(|last| !last.succeeded()), "{all:?}");
        Ok(())
    });
}

/// Stand-ins for the built programs: the agent makes the file of its socket and sleeps unless its state is empty; the
/// tool prints its own arguments and the state as JSON.
fn stand_ins(lab: &Lab) -> Result<Binaries> {
    let script = |name: &str, text: &str| -> Result<PathBuf> {
        let path = lab.directory().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let vipd = r#"
        value() { sed -n "s/^$1: //p" "$config"; }
        config="$2"
        state=$(sed -n 's/^source: { file: \(.*\) }$/\1/p' "$config")
        [ -s "$state" ] || { echo "the state is empty"; exit 1; }
        touch "$(value socket)"
        exec sleep 1000"#;
    let vipctl = r#"
        directory=$(dirname "$2")
        [ "$3" = status ] && { echo '{}'; exit 0; }
        [ "$3" = get ] || { echo "unknown command $3" >&2; exit 2; }
        echo "{\"id\": \"$5\", \"owner\": {\"port\": \"$(cat "$directory/state.yaml")\"}}""#;
    Ok(Binaries { vipd: script("vipd", vipd)?, vipctl: script("vipctl", vipctl)? })
}

#[test]
fn vipd_is_started_killed_restarted_and_asked() {
    Lab::run(|lab| {
        let host = lab.add_host("hv1")?;
        let config = VipdConfig::new("hv1").with("xdp_mode: native");
        let mut vipd = Vipd::start(&host, &stand_ins(lab)?, &config, "first")?;
        vipd.ready()?;
        ensure!(vipd.owner("web")?.as_deref() == Some("first"), "{:?}", vipd.vip("web"));
        vipd.write_state("second")?;
        vipd.wait_for_owner("web", "second", SHORT)?;
        ensure!(vipd.vipctl_output(&["fly"])?.status.code() == Some(2), "a wrong command succeeded");
        ensure!(vipd.vipctl(&["fly"]).is_err(), "a failure was taken for JSON");
        vipd.kill9()?;
        ensure!(!vipd.is_running(), "it lives");
        vipd.begin()?;
        vipd.ready()?;
        vipd.restart()?;
        ensure!(vipd.bpffs().parent().is_some_and(Path::is_dir), "there is no place for pins");

        vipd.stop()?;
        vipd.write_state_in_place("")?;
        vipd.begin()?;
        ensure!(!vipd.wait_for_end(SHORT)?.success(), "it took an empty state");
        let error = format!("{:#}", vipd.ready().err().context("a dead vipd is ready")?);
        ensure!(error.contains("the state is empty"), "the log is not in the error: {error}");
        Ok(())
    });
}
