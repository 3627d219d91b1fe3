//! `vipctl`: what the operator asks of a running vipd, and what works without one.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use vip_userspace::{
    api::{
        Kind, Object,
        client::{Client, DEFAULT_SOCKET},
        model::{EipView, HostView, PortView, SubnetView, VipView, VpcView},
        render::{self, Format},
        summary,
    },
    kernel::{self, DetachReport, Told},
    state::check,
};

/// Looks into and cleans up after vipd, the VIP and EIP forwarder.
///
/// Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
#[derive(Parser)]
#[command(name = "vipctl", version)]
struct Cli {
    /// vipd's socket
    #[arg(long, global = true, value_name = "PATH", env = "VIPCTL_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show all objects of a kind, or one of them
    Get {
        /// What to show
        kind: Kind,
        /// Only the one with this id
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: Option<String>,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show how the host is doing: modes, path per port, drops by reason, sync state
    Status {
        /// How to show it
        #[arg(short, long, value_enum, default_value_t)]
        output: StatusFormat,
    },
    /// Show the last changes of a VIP's owner, the newest first
    History {
        /// The VIP's id
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        vip: String,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Judge a state file without applying it; needs no vipd
    Check {
        /// The file
        file: PathBuf,
        /// Judge it for this host, too
        #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        host: Option<String>,
    },
    /// Stop the forwarding and remove all programs and tables; ends a running vipd, and works without one
    Detach {
        /// vipd's directory below bpffs
        #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/vip")]
        bpffs: PathBuf,
    },
    /// Not in this build: follow events as they happen
    Monitor(Anything),
    /// Not in this build: show what would happen to a packet
    Trace(Anything),
    /// Not in this build: look for what is wrong
    Doctor(Anything),
}

/// Arguments of a command that this build does not have: refused with the command, whatever they are.
#[derive(Args)]
struct Anything {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// How to show a status, which is no list.
#[derive(Clone, Copy, Default, ValueEnum)]
enum StatusFormat {
    /// Text for people
    #[default]
    Table,
    /// JSON, indented
    Json,
    /// YAML
    Yaml,
}

fn main() -> ExitCode {
    // Wrong usage ends here, with code 2.
    let cli = Cli::parse();
    match run(cli).and_then(|text| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked and returns what to print.
fn run(Cli { socket, command }: Cli) -> anyhow::Result<String> {
    match command {
        Command::Get { kind, id, output } => get(&socket, kind, id.as_deref(), output),
        Command::Status { output } => {
            let status = ask(Client::new(&socket).status())?;
            match output {
                StatusFormat::Table => Ok(summary(&status)),
                StatusFormat::Json => Ok(render::json(&status)?),
                StatusFormat::Yaml => Ok(render::yaml(&status)?),
            }
        }
        Command::History { vip, output } => {
            Ok(render::list(output, &ask(Client::new(&socket).history(&vip))?)?)
        }
        Command::Check { file, host } => {
            let summary = check::check(&file, host.as_deref())?;
            Ok(format!("{}: good: {summary}\n", file.display()))
        }
        Command::Detach { bpffs } => {
            let report = kernel::detach(&bpffs)?;
            Ok(describe(&bpffs, &report))
        }
        Command::Monitor(_) => refuse("monitor"),
        Command::Trace(_) => refuse("trace"),
        Command::Doctor(_) => refuse("doctor"),
    }
}

fn refuse(command: &str) -> anyhow::Result<String> {
    anyhow::bail!("this build does not have `vipctl {command}` yet")
}

fn get(socket: &Path, kind: Kind, id: Option<&str>, output: Format) -> anyhow::Result<String> {
    match kind {
        Kind::Hosts => get_objects::<HostView>(socket, id, output),
        Kind::Vpcs => get_objects::<VpcView>(socket, id, output),
        Kind::Subnets => get_objects::<SubnetView>(socket, id, output),
        Kind::Ports => get_objects::<PortView>(socket, id, output),
        Kind::Vips => get_objects::<VipView>(socket, id, output),
        Kind::Eips => get_objects::<EipView>(socket, id, output),
    }
}

fn get_objects<T: Object>(socket: &Path, id: Option<&str>, output: Format) -> anyhow::Result<String> {
    let client = Client::new(socket);
    Ok(match id {
        Some(id) => render::one(output, &ask(client.one::<T>(id))?)?,
        None => render::list(output, &ask(client.list::<T>())?)?,
    })
}

/// What was detached, for people.
fn describe(bpffs: &Path, DetachReport { ended, links, tables, told }: &DetachReport) -> String {
    let Told { ports, replies, gateways, failures } = told;
    let mut lines = Vec::new();
    if let Some(pid) = ended {
        lines.push(format!("ended vipd, process {pid}"));
    }
    lines.push(format!("told {ports} ports the real MACs behind VIPs, by {replies} ARP replies"));
    if *gateways > 0 {
        lines.push(format!(
            "{gateways} ports have no gateway any more: the forwarder was it, and no real MAC stands behind it"
        ));
    }
    lines.extend(failures.iter().map(|failure| format!("not told: {failure}")));
    lines.push(format!("removed {links} attached programs and {tables} tables from {}", bpffs.display()));
    lines.join("\n") + "\n"
}

/// Waits for an answer.
fn ask<T, E>(question: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(question)?)
}

/// Prints the answer. A reader who has seen enough (`vipctl get vips | head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot print the answer")
        }
        _ => Ok(()),
    }
}
