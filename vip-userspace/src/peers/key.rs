//! The secret that the hosts share.

use std::{
    fmt, fs, io,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Bytes that a key has at least: as many as the hash has (RFC 2104 section 3).
const SHORTEST: usize = 32;

/// And at most: what is longer is no key but another file.
const LONGEST: u64 = 4096;

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Length of what authenticates a datagram, in bytes.
pub(super) const TAG: usize = 32;

/// The key, ready to authenticate.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error(
        "peers.key_file: {}: cannot be read; make one key, by `openssl rand -base64 48`, and put it on every host, with mode 0600",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory or a device.
    #[error("peers.key_file: {}: is no regular file; name the file that contains the key", path.display())]
    NoFile {
        /// What is there.
        path: PathBuf,
    },
    /// Others than its owner may read or change it.
    #[error(
        "peers.key_file: {}: its mode is {mode:04o}, so others than its owner can use the key; run `chmod 600` on it, and make a \
         new key if somebody may have read it",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not have as many bytes as a key has.
    #[error(
        "peers.key_file: {}: {found} bytes, white space at the end not counted, are no key; it has {SHORTEST} to {LONGEST}: make one by \
         `openssl rand -base64 48`",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
}

impl Key {
    /// Reads a key: the bytes of a file as they are, without white space at its end. The file is a regular one of 32 to 4096 bytes that
    /// nobody but its owner may read or write.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Read { path: path.to_owned(), source };
        // A pipe must not make the start wait.
        let file =
            fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        // Of what was opened, not of what stands there by now.
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(KeyError::NoFile { path: path.to_owned() });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        Self::of(bytes.trim_ascii_end())
            .ok_or_else(|| KeyError::Length { path: path.to_owned(), found: bytes.trim_ascii_end().len() })
    }

    /// A key of these bytes; `None` if there are too few or too many.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let fits = bytes.len() >= SHORTEST && bytes.len() as u64 <= LONGEST;
        fits.then(|| Hmac::new_from_slice(bytes).ok()).flatten().map(Self)
    }

    /// What authenticates the bytes.
    pub(super) fn tag(&self, bytes: &[u8]) -> [u8; TAG] {
        self.0.clone().chain_update(bytes).finalize().into_bytes().into()
    }

    /// Whether a tag is that of the bytes, in a time that does not tell how much of it is right.
    pub(super) fn verifies(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.0.clone().chain_update(bytes).verify_slice(tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file_of(bytes: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("peers.key");
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        (directory, path)
    }

    #[test]
    fn a_key_is_the_bytes_of_its_file_and_a_newline_at_the_end_is_none_of_them() {
        let (_one, with) = file_of(b"0123456789abcdef0123456789abcdef\n", 0o600);
        let (_two, without) = file_of(b"0123456789abcdef0123456789abcdef", 0o400);
        let (_three, other) = file_of(b"0123456789abcdef0123456789abcdeg", 0o600);
        let [with, without, other] = [with, without, other].map(|path| Key::read(&path).expect("a key"));
        assert_eq!(with.tag(b"text"), without.tag(b"text"));
        assert!(with.verifies(b"text", &without.tag(b"text")));
        assert!(!with.verifies(b"text", &other.tag(b"text")));
        assert!(!with.verifies(b"texu", &with.tag(b"text")));
    }

    #[test]
    fn the_tag_is_hmac_sha256() {
        // RFC 4231 section 4.7: a key of 131 bytes.
        let key = Key::of(&[0xaa; 131]).expect("a key");
        let tag = key.tag(b"Test Using Larger Than Block-Size Key - Hash Key First");
        let expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(tag.map(|byte| format!("{byte:02x}")).concat(), expected);
    }

    #[test]
    fn a_file_that_is_missing_is_named_with_what_to_do() {
        let error = Key::read(Path::new("/nonexistent/peers.key")).expect_err("no key");
        assert!(matches!(&error, KeyError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound));
        assert!(error.to_string().contains("/nonexistent/peers.key"), "{error}");
    }

    #[test]
    fn a_key_that_others_can_use_is_refused_whatever_it_contains() {
        for mode in [0o640, 0o604, 0o620, 0o601, 0o660] {
            let (_directory, path) = file_of(&[b'k'; 64], mode);
            let error = Key::read(&path).expect_err("an open key");
            assert!(matches!(error, KeyError::Open { mode: found, .. } if found == mode), "{error}");
        }
    }

    #[test]
    fn what_is_too_short_or_too_long_is_no_key() {
        for (bytes, counted) in [(vec![b'k'; 31], 31), (vec![b'\n'; 64], 0), (vec![b'k'; 4097], 4097)] {
            let (_directory, path) = file_of(&bytes, 0o600);
            let error = Key::read(&path).expect_err("no key");
            assert!(matches!(error, KeyError::Length { found, .. } if found == counted), "{error}");
        }
    }

    #[test]
    fn what_is_no_file_is_no_key() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(matches!(Key::read(directory.path()), Err(KeyError::NoFile { .. })));
        assert!(matches!(Key::read(Path::new("/dev/null")), Err(KeyError::NoFile { .. })));
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = Key::of(&[b'k'; 32]).expect("a key");
        assert_eq!(format!("{key:?}"), "Key(…)");
    }
}
