//! Child processes with a time limit, and long-lived ones with their logs.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{self, BufRead as _, BufReader, PipeReader, Read, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::poll_until;

/// How long output may trail a process that has ended, when a child of it still holds the pipe.
const TRAILING_OUTPUT: Duration = Duration::from_secs(1);

/// Lines of the log that an error about a process quotes.
const QUOTED_LINES: usize = 20;

/// What a program left when it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output; bytes that are no UTF-8 replaced.
    pub stdout: String,
    /// Standard error; bytes that are no UTF-8 replaced.
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.status, self.stderr.trim(), self.stdout.trim())
    }
}

/// A command line for error messages.
pub(crate) fn started(arguments: &[&str]) -> String {
    format!("`{}`", arguments.join(" "))
}

/// Runs `command` to its end; after `limit` its process group is killed, and that is an error.
pub(crate) fn run(mut command: Command, limit: Duration) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Owned(spawn(&mut command)?);
    let stdout = collect(child.0.stdout.take());
    let stderr = collect(child.0.stderr.take());
    let ended = wait(&mut child.0, limit)?;
    if ended.is_none() {
        child.kill();
    }
    let (stdout, stderr) = (stdout.text(), stderr.text());
    match ended {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => {
            bail!("{} did not end within {limit:?}: {} {}", line_of(&command), stderr.trim(), stdout.trim())
        }
    }
}

fn line_of(command: &Command) -> String {
    let words: Vec<_> =
        [command.get_program()].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    format!("`{}`", words.join(" "))
}

fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().with_context(|| {
        let program = command.get_program().to_string_lossy();
        format!("cannot start {program} (`cargo xtask test` and `cargo xtask demo` install what labs need)")
    })
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let mut failed = None;
    let status = poll_until(limit, "the process to end", || match child.try_wait() {
        Ok(status) => status,
        Err(error) => {
            failed = Some(error);
            Some(ExitStatus::default())
        }
    });
    match failed {
        Some(error) => Err(error).context("cannot wait for a child process"),
        None => Ok(status.ok()),
    }
}

/// A child that must not outlive its owner.
#[derive(Debug)]
struct Owned(Child);

impl Owned {
    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.0.id()).context("process id out of range")?))
    }

    /// Kills the group, which also holds children that the process has left behind, and reaps the child.
    fn kill(&mut self) {
        if let Ok(pid) = self.pid() {
            // A child started without a group of its own (none in a lab's namespaces) is killed alone below.
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // After a successful wait the number may belong to somebody else.
        if matches!(self.0.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// A thread that empties a pipe.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Collected {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&bytes);
    let reader = pipe.map(|mut pipe| {
        thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                locked(&shared).extend_from_slice(chunk.get(..count).unwrap_or_default());
            }
        })
    });
    Collected { bytes, reader }
}

impl Collected {
    /// All that came; the reader stays behind if somebody else keeps the pipe open.
    fn text(self) -> String {
        if let Some(reader) = self.reader {
            let _ =
                poll_until(TRAILING_OUTPUT, "the end of the output", || reader.is_finished().then_some(()));
        }
        String::from_utf8_lossy(&locked(&self.bytes)).into_owned()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line that a process wrote, and when it was read.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// When the line was complete.
    pub at: Instant,
    /// The line without its end.
    pub text: String,
}

/// A place in a log: what was written before it does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogMark(usize);

/// The output of one process, or of several that were started one after the other: in a file, and in memory with the
/// time of each line. Clones are the same log.
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<LogInner>,
}

#[derive(Debug)]
struct LogInner {
    path: PathBuf,
    lines: Mutex<Vec<LogLine>>,
    grown: Condvar,
}

impl Log {
    /// An empty log, written to the file `path` as well.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        fs::File::create(path).with_context(|| format!("cannot create the log {}", path.display()))?;
        let inner = LogInner { path: path.to_owned(), lines: Mutex::default(), grown: Condvar::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The present end.
    pub fn mark(&self) -> LogMark {
        LogMark(locked(&self.inner.lines).len())
    }

    /// The lines since `mark`; all of them since `LogMark::default()`.
    pub fn lines_since(&self, mark: LogMark) -> Vec<LogLine> {
        locked(&self.inner.lines).get(mark.0..).unwrap_or_default().to_vec()
    }

    /// The first line since `mark` that contains `pattern`, waited for at most `limit`.
    pub fn wait_for_line(&self, mark: LogMark, pattern: &str, limit: Duration) -> Result<LogLine> {
        let find = |lines: &[LogLine]| {
            lines.get(mark.0..).unwrap_or_default().iter().find(|line| line.text.contains(pattern)).cloned()
        };
        let (lines, _) = self
            .inner
            .grown
            .wait_timeout_while(locked(&self.inner.lines), limit, |lines| find(lines).is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let found = find(&lines);
        drop(lines);
        found.with_context(|| {
            format!(
                "waited {limit:?} in vain for \"{pattern}\" in {}; it ends:\n{}",
                self.path().display(),
                self.end()
            )
        })
    }

    /// The last lines, for error messages.
    pub fn end(&self) -> String {
        let lines = locked(&self.inner.lines);
        let last = lines.get(lines.len().saturating_sub(QUOTED_LINES)..).unwrap_or_default();
        last.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// Takes all lines of a pipe until everybody has closed it.
    fn follow(&self, pipe: PipeReader) -> Result<()> {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(&self.inner.path)
            .with_context(|| format!("cannot open the log {}", self.inner.path.display()))?;
        let log = self.clone();
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut bytes = Vec::new();
            while let Ok(1..) = pipe.read_until(b'\n', &mut bytes) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                // The file may be gone when the lab is; the process must not block on its output nevertheless.
                let _ = file.write_all(&bytes);
                bytes.clear();
                locked(&log.inner.lines).push(LogLine { at: Instant::now(), text });
                log.inner.grown.notify_all();
            }
        });
        Ok(())
    }
}

/// A process that goes on while the test does something else. It is killed, with its process group, when dropped.
#[derive(Debug)]
pub struct Process {
    child: Owned,
    line: String,
    log: Log,
    mark: LogMark,
}

impl Process {
    pub(crate) fn start(mut command: Command, log: &Log) -> Result<Self> {
        let line = line_of(&command);
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone().context("cannot copy a pipe's end")?)
            .stderr(writer);
        let mark = log.mark();
        log.follow(reader)?;
        let child = Owned(spawn(&mut command)?);
        Ok(Self { child, line, log: log.clone(), mark })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Standard output and standard error.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The first line of this process's output that contains `pattern`, waited for at most `limit`.
    pub fn wait_for_line(&self, pattern: &str, limit: Duration) -> Result<LogLine> {
        self.log.wait_for_line(self.mark, pattern, limit).with_context(|| self.line.clone())
    }

    /// How it ended; None while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.0.try_wait().context("cannot ask after a child process")
    }

    /// An error with the end of the log unless the process runs.
    pub fn must_run(&mut self) -> Result<()> {
        let ended = self.ended()?;
        ensure!(
            ended.is_none(),
            "{} has ended with {}; its log ends:\n{}",
            self.line,
            ended.unwrap_or_default(),
            self.log.end()
        );
        Ok(())
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.child.pid()?, signal).with_context(|| format!("cannot send {signal} to {}", self.line))
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait(&mut self.child.0, limit)?.with_context(|| {
            format!("{} did not end within {limit:?}; its log ends:\n{}", self.line, self.log.end())
        })
    }

    /// Asks it to end with SIGTERM and waits for that.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Kills the whole process group at once with SIGKILL, as a crash of the machine would: no farewell, no cleaning.
    pub fn kill9(&mut self) -> Result<()> {
        self.must_run()?;
        self.child.kill();
        let status = self.ended()?;
        ensure!(
            status.and_then(|status| status.signal()) == Some(Signal::SIGKILL as i32),
            "{} ended first",
            self.line
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_come_back() {
        let output =
            run(shell("echo out; echo err >&2; exit 3"), Duration::from_secs(10)).expect("sh exists");
        assert_eq!(
            (output.status.code(), output.stdout.as_str(), output.stderr.as_str()),
            (Some(3), "out\n", "err\n")
        );
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_and_named() {
        let error =
            run(shell("echo begun; exec sleep 1000"), Duration::from_millis(200)).expect_err("it sleeps");
        let text = error.to_string();
        assert!(text.contains("sleep 1000") && text.contains("begun"), "{text}");
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let error = run(Command::new("no-such-program"), Duration::from_secs(1)).expect_err("it is missing");
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
