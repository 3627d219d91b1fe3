//! HTTP with JSON on a unix socket.
//!
//! `GET /v1/KINDS` answers with an array, `GET /v1/KINDS/ID` with one object; KINDS is one of [`Kind`]. `GET /v1/status`
//! and `GET /v1/history/VIP` answer with a [`StatusView`](super::status::StatusView) and with an array of
//! [`MoveView`](super::model::MoveView)s. Any other status than 200 comes with `{"error": "..."}`; 503: no valid
//! state has been read, so which objects there are is not known.
//!
//! There is nothing to write: who may read is decided by the permissions of the socket's file.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    pin::pin,
    process,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State, rejection::PathRejection},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::future;
use serde::Serialize;
use serde_json::json;
use thiserror::Error;
use tokio::{
    net::{UnixListener, UnixSocket},
    sync::oneshot,
    task, time,
};

use super::{Kind, Object, Source, Unavailable};

/// Permissions of the socket's file: the owner and the group may ask.
pub const SOCKET_MODE: u32 = 0o660;

/// Questions that may wait to be accepted.
const BACKLOG: u32 = 128;

/// How long answers that are under way at the shutdown may take.
const GRACE: Duration = Duration::from_secs(1);

/// Ids that an error lists; more than these are only counted.
const LISTED_IDS: usize = 10;

/// The socket cannot be served.
#[derive(Debug, Error)]
pub enum ServerError {
    /// Somebody listens there.
    #[error("another vipd answers on {}: stop it first, or name another `socket`", path.display())]
    Live {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{} exists and is no socket: remove it, or name another `socket`", path.display())]
    NotASocket {
        /// The socket's path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A socket that listens, and whose file goes when this goes.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

impl Socket {
    /// Listens at `path`, whose file gets the permissions `mode`; makes its directory if need be.
    ///
    /// The file of a vipd that is dead is replaced; a vipd that is alive is left alone. Needs a tokio runtime.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ServerError> {
        let failed = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| ServerError::Io { action, path, source }
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed("make the directory", directory))?;
        }
        refuse_live(path)?;
        // The socket gets its permissions before it listens, and its name, by a rename, after that: nobody meets it
        // unprotected or deaf, and a dead one's file is replaced in one step.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", process::id()));
        let temporary = PathBuf::from(name);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &temporary)(error));
            }
            _ => {}
        }
        let socket = UnixSocket::new_stream().map_err(failed("make the socket", path))?;
        socket.bind(&temporary).map_err(failed("make the socket", &temporary))?;
        let mut file = SocketFile::of(temporary.clone()).map_err(failed("look at", &temporary))?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))
            .map_err(failed("set the permissions of", &temporary))?;
        let listener = socket.listen(BACKLOG).map_err(failed("listen at", path))?;
        fs::rename(&temporary, path).map_err(failed("name the socket", path))?;
        path.clone_into(&mut file.path);
        Ok(Self { listener, file })
    }

    /// Answers from `source` until `shutdown` is ready; then finishes what is under way and removes the socket's file.
    pub async fn serve(
        self,
        source: Arc<dyn Source>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServerError> {
        let Self { listener, file } = self;
        let (stop, stopped) = oneshot::channel();
        let serving = axum::serve(listener, router(source)).with_graceful_shutdown(async {
            // A sender that is gone wants the same as one that sends.
            let _ = stopped.await;
        });
        let deadline = async {
            shutdown.await;
            let _ = stop.send(());
            time::sleep(GRACE).await;
        };
        // A client that connected and never asks must not hold up the end.
        match future::select(pin!(serving.into_future()), pin!(deadline)).await {
            future::Either::Left((Err(source), _)) => {
                Err(ServerError::Io { action: "serve", path: file.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a path at which somebody listens, or that is no socket.
fn refuse_live(path: &Path) -> Result<(), ServerError> {
    let failed = |source| ServerError::Io { action: "look at", path: path.to_path_buf(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ServerError::NotASocket { path: path.to_path_buf() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ServerError::Live { path: path.to_path_buf() }),
        // The file outlived its process (unix(7): ECONNREFUSED), or went just now.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

/// The file of a socket, removed with this value unless somebody has put another one in its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: PathBuf) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(&path)?;
        Ok(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

fn router(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/history/{vip}", get(history))
        .route("/v1/{kind}", get(list))
        .route("/v1/{kind}/{id}", get(one))
        .fallback(nothing_here)
        .method_not_allowed_fallback(only_get)
        .with_state(source)
}

async fn status(State(source): State<Arc<dyn Source>>) -> Response {
    answer(move || answer_of(source.status())).await
}

async fn history(
    State(source): State<Arc<dyn Source>>,
    path: Result<UrlPath<String>, PathRejection>,
) -> Result<Response, Unreadable> {
    let vip = readable(path)?;
    let question = move || match source.history(&vip) {
        Ok(Some(moves)) => json_of(&moves),
        Ok(None) => match source.vips(None) {
            Ok(vips) => no_such(Kind::Vips, &vip, &vips),
            Err(error) => unavailable(&error),
        },
        Err(error) => unavailable(&error),
    };
    Ok(answer(question).await)
}

async fn list(
    State(source): State<Arc<dyn Source>>,
    path: Result<UrlPath<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Unreadable> {
    let Ok(kind) = readable(path)?.parse() else { return Ok(nothing_here(uri).await) };
    let question = move || match kind {
        Kind::Hosts => answer_of(source.hosts(None)),
        Kind::Vpcs => answer_of(source.vpcs(None)),
        Kind::Subnets => answer_of(source.subnets(None)),
        Kind::Ports => answer_of(source.ports(None)),
        Kind::Vips => answer_of(source.vips(None)),
        Kind::Eips => answer_of(source.eips(None)),
    };
    Ok(answer(question).await)
}

async fn one(
    State(source): State<Arc<dyn Source>>,
    path: Result<UrlPath<(String, String)>, PathRejection>,
    uri: Uri,
) -> Result<Response, Unreadable> {
    let (kind, id) = readable(path)?;
    let Ok(kind) = kind.parse() else { return Ok(nothing_here(uri).await) };
    let question = move || match kind {
        Kind::Hosts => one_of(&id, |id| source.hosts(id)),
        Kind::Vpcs => one_of(&id, |id| source.vpcs(id)),
        Kind::Subnets => one_of(&id, |id| source.subnets(id)),
        Kind::Ports => one_of(&id, |id| source.ports(id)),
        Kind::Vips => one_of(&id, |id| source.vips(id)),
        Kind::Eips => one_of(&id, |id| source.eips(id)),
    };
    Ok(answer(question).await)
}

/// A path whose escapes are no UTF-8.
struct Unreadable(PathRejection);

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        failure(self.0.status(), &self.0.body_text())
    }
}

/// The parts of a path.
fn readable<T>(path: Result<UrlPath<T>, PathRejection>) -> Result<T, Unreadable> {
    path.map(|UrlPath(parts)| parts).map_err(Unreadable)
}

async fn nothing_here(uri: Uri) -> Response {
    failure(StatusCode::NOT_FOUND, &format!("there is nothing at {}", uri.path()))
}

async fn only_get() -> Response {
    failure(StatusCode::METHOD_NOT_ALLOWED, "this interface is read only: use GET")
}

/// Runs a question where it may block: answers are read from the kernel's tables, one system call per entry.
async fn answer(question: impl FnOnce() -> Response + Send + 'static) -> Response {
    task::spawn_blocking(question).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a question was not answered");
        failure(StatusCode::INTERNAL_SERVER_ERROR, "vipd failed on this question: see its log")
    })
}

fn one_of<T: Object>(id: &str, objects: impl Fn(Option<&str>) -> Result<Vec<T>, Unavailable>) -> Response {
    let found = objects(Some(id)).and_then(|found| match found.first() {
        Some(object) => Ok(json_of(object)),
        None => Ok(no_such(T::KIND, id, &objects(None)?)),
    });
    found.unwrap_or_else(|error| unavailable(&error))
}

fn answer_of<T: Serialize>(answer: Result<T, Unavailable>) -> Response {
    match answer {
        Ok(value) => json_of(&value),
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &Unavailable) -> Response {
    let status = match error {
        Unavailable::NoState { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Unavailable::Unread { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    failure(status, &error.to_string())
}

fn no_such<T: Object>(kind: Kind, id: &str, all: &[T]) -> Response {
    let singular = kind.singular();
    let known = if all.is_empty() {
        format!("there is no {singular} at all")
    } else if all.len() <= LISTED_IDS {
        let ids: Vec<&str> = all.iter().map(Object::id).collect();
        format!("there are {}", ids.join(", "))
    } else {
        format!("`vipctl get {kind}` lists the {} that there are", all.len())
    };
    failure(StatusCode::NOT_FOUND, &format!("no {singular} `{}`: {known}", id.escape_debug()))
}

fn json_of<T: Serialize>(value: &T) -> Response {
    Json(value).into_response()
}

fn failure(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}
