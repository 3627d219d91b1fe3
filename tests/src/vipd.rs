//! The agent under test, and the operator's tool.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{Host, Log, Output, Process, host::UPLINK, poll_until};

/// How long vipd may take to serve: a debug build verifies its programs slowly on a busy machine.
const START_TIME: Duration = Duration::from_secs(60);

/// How long vipd may take to end in order.
const STOP_TIME: Duration = Duration::from_secs(15);

/// How long one call of vipctl may take.
const VIPCTL_TIME: Duration = Duration::from_secs(15);

/// The built programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The agent.
    pub vipd: PathBuf,
    /// The operator's tool.
    pub vipctl: PathBuf,
}

impl Binaries {
    /// From the variables VIPD and VIPCTL, which `cargo xtask test` sets.
    pub fn from_env() -> Result<Self> {
        let path = |name: &str| -> Result<PathBuf> {
            let path = env::var_os(name).map(PathBuf::from);
            let path =
                path.with_context(|| format!("{name} is not set: run these tests by `cargo xtask test`"))?;
            ensure!(path.is_file(), "{name}={} is no file", path.display());
            Ok(path)
        };
        Ok(Self { vipd: path("VIPD")?, vipctl: path("VIPCTL")? })
    }
}

/// What stands in vipd's configuration beside what the lab itself puts there (`host`, `uplink`, `source`, `socket`,
/// `bpffs`).
#[derive(Clone, Debug)]
pub struct VipdConfig {
    /// The host's id in the state.
    pub host: String,
    /// The uplink's name.
    pub uplink: String,
    /// More lines of YAML, e.g. `xdp_mode: generic`.
    pub more: String,
}

impl VipdConfig {
    /// A host with the lab's uplink and vipd's defaults.
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), uplink: UPLINK.to_owned(), more: String::new() }
    }

    /// The same with one more line of YAML.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.more.push_str(line);
        self.more.push('\n');
        self
    }
}

/// vipd on a host. Its files stand in a directory of their own in the lab's; its log, over all its lives, in
/// `HOST-vipd.log`.
#[derive(Debug)]
pub struct Vipd {
    host: Host,
    binaries: Binaries,
    directory: PathBuf,
    log: Log,
    process: Option<Process>,
}

impl Vipd {
    /// Writes configuration and state and starts vipd in the host's namespace; [`Vipd::ready`] waits until it serves.
    pub fn start(host: &Host, binaries: &Binaries, config: &VipdConfig, state: &str) -> Result<Self> {
        let netns = host.netns();
        let directory = netns.directory().join(format!("{}-vip", netns.label()));
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let mut vipd = Self {
            host: host.clone(),
            binaries: binaries.clone(),
            directory,
            log: netns.log("vipd")?,
            process: None,
        };
        vipd.write_config(config)?;
        vipd.write_state(state)?;
        vipd.begin()?;
        Ok(vipd)
    }

    /// Writes another configuration, for the next start.
    pub fn write_config(&self, config: &VipdConfig) -> Result<()> {
        let VipdConfig { host, uplink, more } = config;
        let text = format!(
            "host: {host}\nuplink: {uplink}\nsource: {{ file: {} }}\nsocket: {}\nbpffs: {}\n{more}",
            self.state_file().display(),
            self.socket().display(),
            self.bpffs().display(),
        );
        fs::write(self.config_file(), text).context("cannot write vipd's configuration")
    }

    /// Replaces the state atomically: written beside it, then renamed.
    pub fn write_state(&self, state: &str) -> Result<()> {
        let new = self.directory.join("state.yaml.new");
        fs::write(&new, state).context("cannot write a new state")?;
        fs::rename(&new, self.state_file()).context("cannot put the new state in place")
    }

    /// Overwrites the state where it stands, as an editor may: a reader can see half of it.
    pub fn write_state_in_place(&self, state: &str) -> Result<()> {
        fs::write(self.state_file(), state).context("cannot overwrite the state")
    }

    /// vipd's configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("vipd.yaml")
    }

    /// The state's file.
    pub fn state_file(&self) -> PathBuf {
        self.directory.join("state.yaml")
    }

    /// The socket for vipctl.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("vipd.sock")
    }

    /// The directory of vipd's pins.
    pub fn bpffs(&self) -> PathBuf {
        self.host.pin_directory().join("vip")
    }

    /// The log of all its lives.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Starts it (again), after [`Vipd::stop`] or [`Vipd::kill9`]. What a killed one left, its socket too, is left to
    /// it, as it would be on a real host.
    pub fn begin(&mut self) -> Result<()> {
        if let Some(process) = &mut self.process {
            ensure!(process.ended()?.is_some(), "vipd on {} runs already", self.host.netns().label());
        }
        self.process = Some(self.spawn_another()?);
        Ok(())
    }

    /// Starts one more vipd with the same configuration, beside the running one: it should refuse to work.
    pub fn spawn_another(&self) -> Result<Process> {
        let config = self.config_file();
        let arguments = [text(&self.binaries.vipd)?, "--config", text(&config)?];
        self.host.netns().spawn_logging_to(&self.log, &arguments)
    }

    /// Waits until it serves: `vipctl status` succeeds. A vipd that ends meanwhile is an error with the end of its log.
    pub fn ready(&mut self) -> Result<()> {
        let mut last = None;
        let waited = poll_until(START_TIME, "vipd to serve", || match self.look() {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) if self.is_running() => {
                last = Some(error);
                None
            }
            // Why it ended says more than that nobody answered.
            Err(error) => Some(Err(self.must_run().err().unwrap_or(error))),
        });
        match waited {
            Ok(outcome) => outcome,
            Err(error) => bail!("{error:#}; lastly {last:?}; its log ends:\n{}", self.log.end()),
        }
    }

    fn look(&mut self) -> Result<bool> {
        self.must_run()?;
        if !self.socket().exists() {
            return Ok(false);
        }
        self.vipctl(&["status", "-o", "json"])?;
        Ok(true)
    }

    /// The process id of its present or last life; None before the first.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.ended(), Ok(None)))
    }

    /// An error with the end of its log unless the process runs.
    pub fn must_run(&mut self) -> Result<()> {
        self.running()?.must_run()
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("vipd was never started")
    }

    /// Waits until it ends by itself, as it does when it refuses to work.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.running()?.wait(limit)
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) -> Result<()> {
        self.running()?.kill9()
    }

    /// Ends it in order, by SIGTERM.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.running()?.stop(STOP_TIME)
    }

    /// Ends it in order, starts it and waits until it serves.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.begin()?;
        self.ready()
    }

    /// Runs vipctl against this vipd, whatever its exit status. `--socket` comes first, before `arguments`.
    pub fn vipctl_output(&self, arguments: &[&str]) -> Result<Output> {
        let socket = self.socket();
        let mut all = vec![text(&self.binaries.vipctl)?, "--socket", text(&socket)?];
        all.extend_from_slice(arguments);
        self.host.netns().run_within(VIPCTL_TIME, &all)
    }

    /// Runs vipctl, which must succeed and print JSON, e.g. `["get", "vips", "-o", "json"]`.
    pub fn vipctl(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.vipctl_output(arguments)?;
        let line = arguments.join(" ");
        ensure!(output.status.success(), "`vipctl {line}` failed with {output}");
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("`vipctl {line}` printed no JSON: {output}"))
    }

    /// One VIP, as `vipctl get vips ID -o json` prints it.
    pub fn vip(&self, id: &str) -> Result<Value> {
        self.vipctl(&["get", "vips", id, "-o", "json"])
    }

    /// Packets dropped so far, by reason.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.vipctl(&["status", "-o", "json"])?;
        let drops = status.get("drops").and_then(Value::as_array).context("the status names no drops")?;
        let entry =
            |drop: &Value| Some((drop.get("reason")?.as_str()?.to_owned(), drop.get("packets")?.as_u64()?));
        let entries: BTreeMap<_, _> = drops.iter().filter_map(entry).collect();
        ensure!(
            entries.len() == drops.len(),
            "a drop reason is no name with a number, or stands twice: {drops:?}"
        );
        Ok(entries)
    }

    /// The id of the port that owns a VIP; None while nobody does.
    pub fn owner(&self, vip: &str) -> Result<Option<String>> {
        let port = self.vip(vip)?.pointer("/owner/port").and_then(Value::as_str).map(str::to_owned);
        Ok(port)
    }

    /// Waits until a port owns a VIP, and gives the VIP as JSON.
    pub fn wait_for_owner(&self, vip: &str, port: &str, limit: Duration) -> Result<Value> {
        let mut last = None;
        let waited = poll_until(limit, &format!("{port} to own {vip}"), || {
            let shown = self.vip(vip);
            let owns = shown
                .as_ref()
                .is_ok_and(|vip| vip.pointer("/owner/port").and_then(Value::as_str) == Some(port));
            last = Some(shown);
            owns.then_some(())
        });
        let last = last.context("nobody looked")?;
        waited.with_context(|| format!("vipctl says {last:?}"))?;
        last
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8 path", path.display()))
}
