//! Keeps the server running: a task that starts it again when it dies, until it is told to stop.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, info, warn};

use super::cluster::Cluster;

/// The delays before a server that died is started again: the first, and the longest.
const RESTART_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A server that lived this long starts again without the delays that gathered before.
const HEALTHY: Duration = Duration::from_mins(1);

/// A running server below its watchdog. Dropping it closes the pipe, at which the watchdog stops the server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    orders: Option<ChildStdin>,
    since: Instant,
}

impl Server {
    /// A server whose watchdog is `child`, with a pipe as its standard input.
    pub(super) fn new(mut child: Child) -> Self {
        let orders = child.stdin.take();
        Self {
            child,
            orders,
            since: Instant::now(),
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// The operating system does not say.
    pub(super) fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Stops the server: SIGINT, after 10 s SIGQUIT, after 5 s more SIGKILL.
    async fn stop(mut self) {
        for (signal, patience_s) in [("INT\n", 10), ("QUIT\n", 5), ("KILL\n", 5)] {
            if let Some(orders) = &mut self.orders
                && let Err(error) = orders.write_all(signal.as_bytes()).await
            {
                debug!(error = &error as &dyn std::error::Error, "the watchdog has ended");
            }
            if timeout(Duration::from_secs(patience_s), self.child.wait())
                .await
                .is_ok()
            {
                return;
            }
            warn!(signal = signal.trim(), "the stand-in did not stop in time");
        }
        error!("the stand-in did not stop");
    }
}

/// Starts the server again whenever it dies, until told to stop (or until the stand-in is dropped).
pub(super) async fn supervise(
    cluster: Cluster,
    socket_directory: PathBuf,
    mut server: Server,
    mut stop: oneshot::Receiver<()>,
) {
    let mut delay = RESTART_DELAYS.0;
    loop {
        tokio::select! {
            _ = &mut stop => return server.stop().await,
            status = server.child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                warn!(status, "the stand-in died; starting it again");
            }
        }
        if server.since.elapsed() >= HEALTHY {
            delay = RESTART_DELAYS.0;
        }
        // if only the watchdog died, this stops the server
        drop(server);
        server = loop {
            let attempt = async {
                sleep(delay).await;
                cluster.clear_leftover().await;
                cluster.launch(&socket_directory).await
            };
            tokio::select! {
                // the attempt is dropped and its server told to stop; this waits for it
                _ = &mut stop => return cluster.clear_leftover().await,
                launched = attempt => match launched {
                    Ok(server) => break server,
                    Err(error) => error!(error = &error as &dyn std::error::Error, "the stand-in does not start"),
                }
            }
            delay = (delay * 2).min(RESTART_DELAYS.1);
        };
        delay = (delay * 2).min(RESTART_DELAYS.1);
        info!("the stand-in runs again");
    }
}
