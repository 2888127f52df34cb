//! One thread per core, each with a runtime of its own: a client's task and the connection it drives stay on one core.
//!
//! A listener of its own for each thread would leave it to a hash which of them gets a client; here the one with the
//! fewest clients does.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::connection::Frontend;

/// Clients that wait for a thread to take them.
const BACKLOG: usize = 1024;

/// A client that was accepted.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
}

struct Worker {
    clients: mpsc::Sender<Accepted>,
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// The threads.
pub struct Workers {
    workers: Vec<Worker>,
}

/// Counts a client of a worker until it is gone.
struct Loaded(Arc<AtomicUsize>);

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts `count` threads, one per core where it is 0.
    ///
    /// # Errors
    ///
    /// A thread or its runtime cannot be started.
    pub fn start(count: usize, frontend: &Arc<Frontend>) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let count = if count == 0 { cores } else { count };
        let workers = (0..count).map(|number| Self::start_one(number, Arc::clone(frontend)));
        Ok(Self {
            workers: workers.collect::<io::Result<_>>()?,
        })
    }

    fn start_one(number: usize, frontend: Arc<Frontend>) -> io::Result<Worker> {
        let (clients, mut accepted) = mpsc::channel::<Accepted>(BACKLOG);
        let load = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&load);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name(format!("tollgate-{number}"))
            .spawn(move || {
                runtime.block_on(async move {
                    while let Some(client) = accepted.recv().await {
                        counted.fetch_add(1, Ordering::Relaxed);
                        let loaded = Loaded(Arc::clone(&counted));
                        let frontend = Arc::clone(&frontend);
                        tokio::spawn(async move {
                            frontend.serve(client).await;
                            drop(loaded);
                        });
                    }
                });
            })?;
        Ok(Worker {
            clients,
            load,
            thread,
        })
    }

    /// Hands a client to the thread with the fewest. One that finds every thread's backlog full is let go.
    pub(super) fn hand_over(&self, client: Accepted) {
        let least = self
            .workers
            .iter()
            .min_by_key(|worker| worker.load.load(Ordering::Relaxed));
        if let Some(worker) = least {
            // a full backlog closes the socket: the client sees the connection end and may try again
            drop(worker.clients.try_send(client));
        }
    }

    /// Ends the threads with whatever they still run.
    pub fn stop(self) {
        for Worker { clients, thread, .. } in self.workers {
            drop(clients);
            // a panic of a worker was reported when it happened
            drop(thread.join());
        }
    }
}
