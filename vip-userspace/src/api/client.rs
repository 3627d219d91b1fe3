//! Asking a vipd.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST},
};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{net::UnixStream, time};

use super::{Object, model::MoveView, status::StatusView};

/// Where vipd listens unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/vip/vipd.sock";

/// How long a question may take in all. A vipd that is only slow reads a million counters in less.
const PATIENCE: Duration = Duration::from_secs(30);

/// A question was not answered.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no socket, or nobody listens at it.
    #[error("no vipd at {}: is it running? name another socket by --socket or VIPCTL_SOCKET", path.display())]
    NoVipd {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The permissions of the socket or of its directory forbid it.
    #[error("not allowed to ask vipd at {}: be root, or a member of the socket's group", path.display())]
    Denied {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refuses the connection for another reason.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The question cannot be put: the id is endless.
    #[error("no question can be made of this id")]
    Question {
        /// What is wrong with it.
        source: hyper::http::Error,
    },
    /// The question got lost.
    #[error("asking {} failed: does a vipd listen there?", path.display())]
    Exchange {
        /// The socket's path.
        path: PathBuf,
        /// What went wrong.
        source: hyper::Error,
    },
    /// No answer came in time.
    #[error("{} gave no answer for {} seconds", path.display(), PATIENCE.as_secs())]
    Silent {
        /// The socket's path.
        path: PathBuf,
    },
    /// The answer is not what a vipd of this version says.
    #[error("what answered at {} is no vipd, or one of another version", path.display())]
    Answer {
        /// The socket's path.
        path: PathBuf,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
    /// The answer is an error.
    #[error("{message}")]
    Refused {
        /// vipd's words.
        message: String,
    },
}

/// A refusal, as the server writes it.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Asks the vipd behind one socket. Needs a tokio runtime.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the vipd that listens at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_path_buf() }
    }

    /// All objects of a kind.
    pub async fn list<T: Object>(&self) -> Result<Vec<T>, ClientError> {
        self.get(&format!("/v1/{}", T::KIND)).await
    }

    /// The object of a kind with this id.
    pub async fn one<T: Object>(&self, id: &str) -> Result<T, ClientError> {
        self.get(&format!("/v1/{}/{}", T::KIND, escape(id))).await
    }

    /// How the host is doing.
    pub async fn status(&self) -> Result<StatusView, ClientError> {
        self.get("/v1/status").await
    }

    /// The last moves of a VIP, the newest first.
    pub async fn history(&self, vip: &str) -> Result<Vec<MoveView>, ClientError> {
        self.get(&format!("/v1/history/{}", escape(vip))).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let (status, body) = time::timeout(PATIENCE, self.exchange(path))
            .await
            .map_err(|_| ClientError::Silent { path: self.socket.clone() })??;
        let unexpected = |source| ClientError::Answer { path: self.socket.clone(), source };
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(unexpected);
        }
        let Refusal { error: message } = serde_json::from_slice(&body).map_err(unexpected)?;
        Err(ClientError::Refused { message })
    }

    async fn exchange(&self, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_connected(error))?;
        let lost = |source| ClientError::Exchange { path: self.socket.clone(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // Its errors also come out of the request.
        let connection = tokio::spawn(connection);
        // HTTP/1.1 wants a host (RFC 9112 §3.2); a unix socket has none.
        let request = Request::get(path)
            .header(HOST, "vipd")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|source| ClientError::Question { source })?;
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(lost)?.to_bytes();
        connection.abort();
        Ok((status, body))
    }

    fn not_connected(&self, source: io::Error) -> ClientError {
        let path = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoVipd { path, source }
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied { path, source },
            _ => ClientError::Connect { path, source },
        }
    }
}

fn escape(id: &str) -> impl std::fmt::Display {
    utf8_percent_encode(id, NON_ALPHANUMERIC)
}
