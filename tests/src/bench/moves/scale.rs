//! A state of many EIPs: a tenth of them lead to VIPs, the others to fixed addresses.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{
        Options, progress,
        report::{Section, count},
        world,
    },
    CPU, MEMORY, MS,
    process::{map_memory, maps, memory, processor_share},
};
use crate::{Binaries, EipReach, Lab, LogMark, Vipd, VipdConfig, poll_until};

/// How long a start may take, and a change.
const LIMIT: Duration = Duration::from_secs(240);

/// VIPs of one port.
const VIPS_EACH: u32 = 10;

/// The scene: so many EIPs, VIPs and ports. The last port has no EIP at first.
struct Many {
    eips: u32,
    vips: u32,
    ports: u32,
}

impl Many {
    const fn new(eips: u32) -> Self {
        let vips = eips / 10;
        Self { eips, vips, ports: eips - vips + 1 }
    }

    /// The state; `moved`: the last EIP leads to the port that had none.
    fn state(&self, moved: bool) -> Result<String> {
        let mut text = String::with_capacity(self.eips as usize * 220);
        text.push_str(
            "hosts:\n  - { id: many, vtep: 198.51.100.1 }\nvpcs:\n  - { id: blue, vni: 4001 }\nsubnets:\n",
        );
        text.push_str("  - { id: web, vpc: blue, cidr: 10.0.0.0/8, gateway: 10.255.255.254 }\nports:\n");
        for port in 0..self.ports {
            let [_, a, b, c] = port.to_be_bytes();
            let address = world::nth(Ipv4Addr::new(10, 0, 0, 1), port);
            writeln!(
                text,
                "  - {{ id: port-{port}, subnet: web, address: {address}, mac: \"02:00:00:{a:02x}:{b:02x}:{c:02x}\", \
                 host: many, interface: tap{port} }}"
            )?;
        }
        text.push_str("vips:\n");
        for vip in 0..self.vips {
            let address = world::nth(Ipv4Addr::new(10, 128, 0, 1), vip);
            let first = vip / VIPS_EACH * 2;
            writeln!(
                text,
                "  - {{ id: vip-{vip}, subnet: web, address: {address}, ports: [port-{first}, port-{}] }}",
                first + 1
            )?;
        }
        text.push_str("eips:\n");
        for eip in 0..self.eips {
            let address = world::nth(world::FIRST_EIP, eip);
            let target = if eip < self.vips {
                format!("vip: vip-{eip}")
            } else {
                let port = if moved && eip + 1 == self.eips { self.ports - 1 } else { eip - self.vips };
                format!("port: port-{port}")
            };
            writeln!(text, "  - {{ id: eip-{eip}, address: {address}, {target} }}")?;
        }
        Ok(text)
    }
}

pub(super) fn run(options: &Options, lab: &Lab, section: &mut Section) -> Result<()> {
    let entries =
        options.entries.iter().copied().max().unwrap_or(if options.short { 2000 } else { 1_000_000 });
    ensure!(entries >= 100, "{entries} EIPs are too few for a tenth of them to lead to VIPs");
    let many = Many::new(entries);
    let size = format!("{} EIPs", count(entries));
    progress!("d: {size}: writing the state");
    let state = many.state(false)?;
    let host = lab.add_host("many")?;
    let _outside = host.add_outside(EipReach::OnLink)?;
    let config = VipdConfig::new("many").with(&format!(
        "capacity: {{ ports: {}, vips: {}, eips: {}, subnets: 16 }}",
        many.ports.next_power_of_two().min((1 << 20) - 1),
        many.vips.next_power_of_two(),
        many.eips.next_power_of_two()
    ));
    let before = maps()?;
    progress!("d: {size}: {} MB of state; vipd starts", state.len() / 1_000_000);
    let begin = Instant::now();
    let vipd = Vipd::start(&host, &Binaries::from_env()?, &config, &state)?;
    drop(state);
    let mark = LogMark::default();
    let ready = vipd.log().wait_for_line(mark, "forwards", LIMIT)?;
    let last = format!("eip-{}", many.eips - 1);
    target(&vipd, &last)?.context("the last EIP is not there when vipd forwards")?;
    section.tell("start to forwarding, all tables filled", &size, MS, [ms(ready.at - begin)])?;
    timings(&vipd, mark, &size, "at the start", section)?;
    let pid = vipd.id().context("vipd was not started")?;
    thread::sleep(Duration::from_secs(if options.short { 1 } else { 5 }));
    section.tell("user memory, settled (VmRSS)", &size, MEMORY, [memory(pid, "VmRSS")?])?;
    section.tell("user memory, greatest (VmHWM)", &size, MEMORY, [memory(pid, "VmHWM")?])?;
    let (bytes, number) = map_memory(&before)?;
    section.tell("kernel memory of the tables (memlock)", &size, MEMORY, [bytes])?;
    let idle = Duration::from_secs(if options.short { 1 } else { 5 });
    let (share, ()) = processor_share(pid, || {
        thread::sleep(idle);
        Ok(())
    })?;
    section.tell("processor time of an idle vipd", &size, CPU, [share])?;

    progress!("d: {size}: one EIP is given to another port");
    let new = many.state(true)?;
    let mark = vipd.log().mark();
    let file = vipd.state_file().with_extension("another");
    fs::write(&file, new).context("cannot write a new state")?;
    let begin = Instant::now();
    fs::rename(&file, vipd.state_file()).context("cannot put the new state in place")?;
    let wanted = format!("port-{}", many.ports - 1);
    poll_until(LIMIT, "the changed EIP", || {
        (target(&vipd, &last).ok()?.as_deref() == Some(&wanted)).then_some(())
    })?;
    section.tell(
        "one EIP changed, from the file's replacement to vipctl",
        &size,
        MS,
        [ms(begin.elapsed())],
    )?;
    timings(&vipd, mark, &size, "of one changed EIP", section)?;
    section.verified.push(format!(
        "{size}: {} VIPs and {} ports; the last EIP is served when vipd says that it forwards, and leads to another port after \
         the change; {number} maps",
        count(many.vips), count(many.ports)
    ));
    Ok(())
}

/// Where vipd says that an EIP leads.
fn target(vipd: &Vipd, eip: &str) -> Result<Option<String>> {
    let shown = vipd.vipctl(&["get", "eips", eip, "-o", "json"])?;
    let of = |field: &str| shown.get(field).and_then(serde_json::Value::as_str).map(str::to_owned);
    Ok(of("port").or_else(|| of("vip")))
}

/// What vipd itself says that the steps took: `parse_ms=…`, `plan_ms=…`, `apply_ms=…` in its log.
fn timings(vipd: &Vipd, mark: LogMark, size: &str, when: &str, section: &mut Section) -> Result<()> {
    let lines = vipd.log().lines_since(mark);
    for (field, what) in
        [("parse_ms=", "parsed"), ("plan_ms=", "planned"), ("apply_ms=", "written into the tables")]
    {
        let found = lines.iter().rev().find_map(|line| {
            let (_, rest) = line.text.split_once(field)?;
            rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?.parse::<f64>().ok()
        });
        match found {
            Some(time) => section.tell(&format!("{what}, {when}, as vipd says"), size, MS, [time])?,
            None => section.verified.push(format!("left out: {what}, {when}: vipd's log does not say")),
        }
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
