//! The task that answers on the operator's socket.

use std::sync::Arc;

use tokio::{sync::oneshot, task::JoinHandle};

use super::{error::chain, shared::Shared};
use crate::api::server::{ServerError, Socket};

/// The task, and how to end it.
pub(super) struct ServerTask {
    stop: oneshot::Sender<()>,
    /// Ready when it has ended by itself, which it does not do unless it fails.
    pub(super) task: JoinHandle<Result<(), ServerError>>,
}

impl ServerTask {
    /// Starts to answer.
    pub(super) fn start(socket: Socket, shared: Arc<Shared>) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(socket.serve(shared, async {
            // A sender that is gone wants the same as one that sends.
            let _ = stopped.await;
        }));
        Self { stop, task }
    }

    /// Finishes what is under way, and ends.
    pub(super) async fn end(self) {
        let _ = self.stop.send(());
        if let Ok(Err(error)) = self.task.await {
            tracing::warn!("the socket ended badly: {}", chain(&error));
        }
    }
}
