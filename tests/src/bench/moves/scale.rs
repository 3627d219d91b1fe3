//! A state of many EIPs: a tenth of them lead to VIPs, the others to fixed addresses.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{
        Options, progress,
        report::{Section, count},
    },
    CPU, MEMORY, MS,
    process::{map_memory, maps, memory, processor_share, settle},
};
use crate::{
    Binaries, EipReach, Lab, LogLine, LogMark, Vipd, VipdConfig,
    big_state::{BigState, Form, eip_id, port_id},
    poll_until,
};

/// How long a start may take, and a change.
const LIMIT: Duration = Duration::from_secs(240);

/// The state, with one port that has no EIP.
fn many(eips: u32) -> BigState {
    let all = BigState::of_eips(eips);
    BigState { ports: all.ports + 1, ..all }
}

fn written(many: &BigState) -> Result<String> {
    let mut text = Vec::new();
    many.write(Form::Lines, &mut text).context("cannot write the state")?;
    String::from_utf8(text).context("the state is no text")
}

/// The same state, but the last EIP, at its end, leads to the port that had none.
fn moved(state: &str, many: &BigState) -> Result<String> {
    let (all_before, _) = state.rsplit_once("port: ").context("no EIP leads to a port")?;
    Ok(format!("{all_before}port: {} }}\n", port_id(many.ports - 1)))
}

pub(super) fn run(options: &Options, lab: &Lab, section: &mut Section) -> Result<()> {
    let entries =
        options.entries.iter().copied().max().unwrap_or(if options.short { 2000 } else { 1_000_000 });
    ensure!(entries >= 100, "{entries} EIPs are too few for a tenth of them to lead to VIPs");
    let many = many(entries);
    let size = format!("{} EIPs", count(entries));
    progress!("d: {size}: writing the state");
    let state = written(&many)?;
    let host = lab.add_host(BigState::HOST)?;
    let _outside = host.add_outside(EipReach::OnLink)?;
    let config = VipdConfig::new(BigState::HOST).with(&format!(
        "capacity: {{ ports: {}, vips: {}, eips: {}, subnets: {} }}",
        many.ports,
        many.vips,
        many.eips,
        many.vpcs()
    ));
    let before = maps()?;
    progress!("d: {size}: {} MB of state; vipd starts", state.len() / 1_000_000);
    let begin = Instant::now();
    let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &config, &state)?;
    let mark = LogMark::default();
    let ready = forwards(&mut vipd, mark)?;
    let last = eip_id(many.eips - 1);
    target(&vipd, &last)?.context("the last EIP is not there when vipd forwards")?;
    section.tell("start to forwarding, all tables filled", &size, MS, [ms(ready.at - begin)])?;
    timings(&vipd, mark, &size, "at the start", section)?;
    let pid = vipd.id().context("vipd was not started")?;
    let quiet = Duration::from_secs(if options.short { 1 } else { 5 });
    settle(pid, quiet)?;
    let (kernel, number) = map_memory(&before)?;
    memories(pid, kernel, &size, "settled", section)?;
    let idle = Duration::from_secs(if options.short { 1 } else { 5 });
    let (share, ()) = processor_share(pid, || {
        thread::sleep(idle);
        Ok(())
    })?;
    section.tell("processor time of an idle vipd", &size, CPU, [share])?;

    progress!("d: {size}: one EIP is given to another port");
    let new = moved(&state, &many)?;
    let mark = vipd.log().mark();
    let file = vipd.state_file().with_extension("another");
    fs::write(&file, new).context("cannot write a new state")?;
    let begin = Instant::now();
    fs::rename(&file, vipd.state_file()).context("cannot put the new state in place")?;
    let wanted = port_id(many.ports - 1);
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
    settle(pid, quiet)?;
    memories(pid, map_memory(&before)?.0, &size, "after a change", section)?;
    section.verified.push(format!(
        "{size}: {} VIPs and {} ports; the last EIP is served when vipd says that it forwards, and leads to another port after \
         the change; {number} maps",
        count(many.vips), count(many.ports)
    ));
    Ok(())
}

/// What the process and the tables take. Pages of tables that the process has mapped count among its resident ones, as pages of
/// files; so its own are the others and the program's.
fn memories(pid: u32, kernel: f64, size: &str, when: &str, section: &mut Section) -> Result<()> {
    let user = memory(pid, "RssAnon")?;
    section.tell(&format!("user memory, {when} (RssAnon)"), size, MEMORY, [user])?;
    section.tell(&format!("kernel memory of the tables, {when} (memlock)"), size, MEMORY, [kernel])?;
    section.tell(&format!("user and kernel memory, {when}"), size, MEMORY, [user + kernel])?;
    section.tell(
        &format!("user memory, greatest until {when} (VmHWM)"),
        size,
        MEMORY,
        [memory(pid, "VmHWM")?],
    )
}

/// Waits until vipd forwards; one that ends instead is an error.
fn forwards(vipd: &mut Vipd, mark: LogMark) -> Result<LogLine> {
    poll_until(LIMIT, "vipd to forward", || {
        let lines = vipd.log().lines_since(mark);
        match lines.into_iter().find(|line| line.text.contains(" forwards ")) {
            Some(line) => Some(Ok(line)),
            None => vipd.must_run().err().map(Err),
        }
    })?
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
