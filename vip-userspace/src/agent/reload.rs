//! The state's file: when it changes, and what is in it then.

use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::mpsc,
    task::{self, JoinHandle},
    time::{Instant, sleep_until},
};

use super::AgentError;
use crate::{
    memory,
    state::{self, State, StateError},
};

/// A file that is written in place changes several times; it is read when it has been quiet for so long,
const QUIET: Duration = Duration::from_millis(100);

/// and after so long in any case.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the file is looked at without a notification: links that lead elsewhere, and a directory that is replaced, are
/// not notified of.
const LOOK: Duration = Duration::from_secs(2);

/// What tells two versions of a file apart without reading them: device, inode, size, and modification time.
type Stamp = (u64, u64, u64, i64, i64);

/// Follows the state's file.
pub(super) struct StateFile {
    path: PathBuf,
    host: String,
    /// Watches the directory, because the file itself is usually replaced. `None` while there is no directory.
    watcher: Option<RecommendedWatcher>,
    notices: mpsc::Receiver<()>,
    notify: mpsc::Sender<()>,
    stamp: Option<Stamp>,
    /// First and last change that was not read yet.
    unread: Option<(Instant, Instant)>,
    look_at: Instant,
    /// Hash and length of what was read last, of which a copy may be hundreds of megabytes; `None`: nothing, or it could not be
    /// read.
    print: Option<(u64, usize)>,
    /// Keys of the hash.
    hasher: RandomState,
    parse_ms: u64,
    failed: Option<io::ErrorKind>,
    /// A reading that goes on, and when it began.
    reading: Option<(Instant, JoinHandle<Version>)>,
}

impl StateFile {
    /// Starts to follow a file, which need not exist. `host` is the host that applies the state.
    pub(super) fn open(path: &Path, host: &str) -> Result<Self, AgentError> {
        // One notice is as good as many.
        let (notify, notices) = mpsc::channel(1);
        let mut file = Self {
            path: path.to_owned(),
            host: host.to_owned(),
            watcher: None,
            notices,
            notify,
            stamp: None,
            unread: None,
            look_at: Instant::now() + LOOK,
            print: None,
            hasher: RandomState::new(),
            parse_ms: 0,
            failed: None,
            reading: None,
        };
        file.watch()?;
        Ok(file)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn watch(&mut self) -> Result<(), AgentError> {
        let failed = |source| AgentError::Watch { path: self.path.clone(), source };
        let directory =
            self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !directory.is_dir() {
            return Ok(());
        }
        let notify = self.notify.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is no change.
            let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
            if event.is_ok_and(|event| event.kind.is_access() && event.kind != written) {
                return;
            }
            // Full: a notice waits already. Closed: nobody wants to know.
            let _ = notify.try_send(());
        })
        .map_err(failed)?;
        watcher.watch(directory, RecursiveMode::NonRecursive).map_err(failed)?;
        self.watcher = Some(watcher);
        Ok(())
    }

    /// Waits until something different is in the file, and what. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<State, StateError> {
        loop {
            if self.reading.is_none() {
                self.changed().await;
            }
            if let Some(read) = self.read().await {
                return read;
            }
        }
    }

    /// Waits until the file may have changed and is quiet again. Cancel-safe.
    async fn changed(&mut self) {
        loop {
            let due = self.unread.map(|(first, last)| (last + QUIET).min(first + PATIENCE));
            let wake_at = due.unwrap_or(self.look_at).min(self.look_at);
            tokio::select! {
                Some(()) = self.notices.recv() => self.note_change(),
                () = sleep_until(wake_at) => {}
            }
            let now = Instant::now();
            if self.look_at <= now {
                self.look_at = now + LOOK;
                if self.watcher.is_none()
                    && let Err(error) = self.watch()
                {
                    tracing::debug!(%error, "the state's directory is not watched yet");
                }
                let stamp = stamp(&self.path);
                if stamp != self.stamp {
                    self.stamp = stamp;
                    self.note_change();
                }
            }
            if self.unread.is_some_and(|(first, last)| (last + QUIET).min(first + PATIENCE) <= now) {
                self.unread = None;
                return;
            }
        }
    }

    fn note_change(&mut self) {
        let now = Instant::now();
        self.unread = Some((self.unread.map_or(now, |(first, _)| first), now));
    }

    /// How long the last reading took that found something different, in milliseconds.
    pub(super) fn parse_ms(&self) -> u64 {
        self.parse_ms
    }

    /// Reads and judges the file; `None` if nothing is different from the last time. Cancel-safe: called again, it goes on.
    pub(super) async fn read(&mut self) -> Option<Result<State, StateError>> {
        let (begun, reading) = match &mut self.reading {
            Some(reading) => reading,
            none => {
                self.stamp = stamp(&self.path);
                let (path, host) = (self.path.clone(), self.host.clone());
                let (before, hasher) = (self.print, self.hasher.clone());
                // A large state takes its time, and neither claims nor the server's answers must wait for it.
                let reading = task::spawn_blocking(move || Version::read(&path, &host, before, &hasher));
                none.insert((Instant::now(), reading))
            }
        };
        let (begun, read) = (*begun, reading.await);
        self.reading = None;
        // What is left of the reading is several times the state.
        memory::give_back();
        match read.unwrap_or_else(|error| Version::Unreadable(io::Error::other(error))) {
            Version::Same => {
                self.failed = None;
                None
            }
            Version::Other { print, judged } => {
                self.failed = None;
                self.print = Some(print);
                self.parse_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(bytes = print.1, parse_ms = self.parse_ms, "read {}", self.path.display());
                Some(judged.map(|state| *state))
            }
            Version::Unreadable(error) if self.failed == Some(error.kind()) => None,
            Version::Unreadable(error) => {
                self.print = None;
                self.failed = Some(error.kind());
                Some(Err(self.unreadable(error)))
            }
        }
    }

    fn unreadable(&self, source: io::Error) -> StateError {
        StateError::Read { path: self.path.clone(), source }
    }
}

/// What a look into the file found.
enum Version {
    /// What was there before.
    Same,
    /// Something else.
    Other {
        /// Its hash and length.
        print: (u64, usize),
        /// What it is worth.
        judged: Result<Box<State>, StateError>,
    },
    /// Nothing.
    Unreadable(io::Error),
}

impl Version {
    fn read(path: &Path, host: &str, before: Option<(u64, usize)>, hasher: &RandomState) -> Self {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return Self::Unreadable(error),
        };
        let print = (hasher.hash_one(text.as_bytes()), text.len());
        if before == Some(print) {
            return Self::Same;
        }
        let judged = state::parse(&text, &path.display().to_string(), Some(host)).map(Box::new);
        Self::Other { print, judged }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn valid(vtep: &str) -> String {
        format!("hosts: [{{ id: hv1, vtep: {vtep} }}]\nvpcs: []\nsubnets: []\nports: []\n")
    }

    async fn next(file: &mut StateFile) -> Result<State, StateError> {
        timeout(PATIENCE, file.next()).await.expect("a change")
    }

    #[tokio::test]
    async fn a_reading_that_was_interrupted_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.yaml");
        fs::write(&path, valid("172.31.0.1")).expect("a file");
        let mut file = StateFile::open(&path, "hv1").expect("a watch");
        let mut interrupted = 0;
        let state = loop {
            tokio::select! {
                biased;
                read = file.read() => break read,
                () = std::future::ready(()) => interrupted += 1,
            }
            task::yield_now().await;
        };
        assert!(matches!(state, Some(Ok(_))), "interrupted {interrupted} times");
        assert!(file.read().await.is_none());
    }

    #[tokio::test]
    async fn a_file_renamed_into_place_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.yaml");
        fs::write(&path, valid("172.31.0.1")).expect("a file");
        let mut file = StateFile::open(&path, "hv1").expect("a watch");
        assert!(matches!(file.read().await, Some(Ok(_))));
        assert!(file.read().await.is_none());
        let new = directory.path().join("new");
        fs::write(&new, valid("172.31.0.2")).expect("a file");
        fs::rename(&new, &path).expect("a rename");
        let state = next(&mut file).await.expect("a state");
        assert_eq!(state.hosts.values().next().expect("a host").vtep.to_string(), "172.31.0.2");
    }

    #[tokio::test]
    async fn a_file_written_in_place_is_read_once_it_is_quiet() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.yaml");
        fs::write(&path, valid("172.31.0.1")).expect("a file");
        let mut file = StateFile::open(&path, "hv1").expect("a watch");
        file.read().await;
        fs::write(&path, "").expect("truncated");
        fs::write(&path, valid("172.31.0.3")).expect("a file");
        assert!(next(&mut file).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_vanishes_is_told_of_and_so_is_its_return() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.yaml");
        fs::write(&path, valid("172.31.0.1")).expect("a file");
        let mut file = StateFile::open(&path, "hv1").expect("a watch");
        file.read().await;
        fs::remove_file(&path).expect("removed");
        assert!(matches!(next(&mut file).await, Err(StateError::Read { .. })));
        fs::write(&path, valid("172.31.0.1")).expect("a file");
        assert!(next(&mut file).await.is_ok());
    }

    #[tokio::test]
    async fn a_directory_that_comes_later_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("later/state.yaml");
        let mut file = StateFile::open(&path, "hv1").expect("a watch");
        assert!(matches!(file.read().await, Some(Err(_))));
        fs::create_dir(directory.path().join("later")).expect("a directory");
        fs::write(&path, valid("172.31.0.1")).expect("a file");
        assert!(next(&mut file).await.is_ok());
    }

    #[tokio::test]
    async fn a_link_that_leads_elsewhere_is_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let elsewhere = tempfile::tempdir().expect("another one");
        let target = elsewhere.path().join("state.yaml");
        fs::write(&target, valid("172.31.0.1")).expect("a file");
        let path = directory.path().join("state.yaml");
        std::os::unix::fs::symlink(&target, &path).expect("a link");
        let mut file = StateFile::open(&path, "hv1").expect("a watch");
        file.read().await;
        fs::write(&target, valid("172.31.0.9")).expect("a file");
        assert!(next(&mut file).await.is_ok());
    }
}
