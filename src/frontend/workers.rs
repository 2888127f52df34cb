//! Threads, each with a runtime of its own: a client's task and the connection it drives stay on one of them.
//!
//! A listener of its own for each thread would leave it to a hash which of them gets a client; here the one with the
//! fewest clients does.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
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
    clients: mpsc::Sender<(Accepted, Loaded)>,
    load: Arc<AtomicUsize>,
    runtime: Handle,
    thread: JoinHandle<()>,
}

/// The threads.
pub struct Workers {
    workers: Vec<Worker>,
}

/// The runtimes of the threads, which tell what runs there.
#[derive(Clone, Default)]
pub struct Runtimes(Arc<[Handle]>);

impl Runtimes {
    /// Tasks that have not ended.
    pub fn tasks(&self) -> u64 {
        let alive = |runtime: &Handle| runtime.metrics().num_alive_tasks();
        u64::try_from(self.0.iter().map(alive).sum::<usize>()).unwrap_or(u64::MAX)
    }
}

/// Counts a client of a worker from when it is handed over until it is gone.
struct Loaded(Arc<AtomicUsize>);

impl Loaded {
    fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts `count` threads, one for every two cores where it is 0: the kernel and whoever else is on the machine need
    /// theirs, and fewer, busier threads sleep and wake less.
    ///
    /// # Errors
    ///
    /// A thread or its runtime cannot be started.
    pub fn start(count: usize, frontend: &Arc<Frontend>) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let count = if count == 0 { cores.div_ceil(2) } else { count };
        let workers = (0..count).map(|number| Self::start_one(number, Arc::clone(frontend)));
        Ok(Self {
            workers: workers.collect::<io::Result<_>>()?,
        })
    }

    fn start_one(number: usize, frontend: Arc<Frontend>) -> io::Result<Worker> {
        let (clients, mut accepted) = mpsc::channel::<(Accepted, Loaded)>(BACKLOG);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name(format!("tollgate-{number}"))
            .spawn(move || {
                runtime.block_on(async move {
                    while let Some((client, loaded)) = accepted.recv().await {
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
            load: Arc::default(),
            runtime: handle,
            thread,
        })
    }

    fn least(&self) -> Option<&Worker> {
        self.workers
            .iter()
            .min_by_key(|worker| worker.load.load(Ordering::Relaxed))
    }

    /// Waits until the thread with the fewest clients can take another. While it cannot, clients wait in the kernel's
    /// backlog: who comes in a crowd is served later, and not turned away; and a listener that ends meanwhile leaves them
    /// to whoever listens next.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn room(&self) {
        if let Some(worker) = self.least() {
            // a thread that has ended has room for ever
            drop(worker.clients.reserve().await);
        }
    }

    /// Hands a client to the thread with the fewest.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the client's connection is closed.
    pub(super) async fn hand_over(&self, client: Accepted) {
        if let Some(worker) = self.least() {
            // a thread that has ended takes nobody: the client sees the connection end and may try again
            drop(worker.clients.send((client, Loaded::new(&worker.load))).await);
        }
    }

    /// The threads' runtimes.
    pub fn runtimes(&self) -> Runtimes {
        Runtimes(self.workers.iter().map(|worker| worker.runtime.clone()).collect())
    }

    /// Clients of all threads, logged in or not.
    pub fn clients(&self) -> usize {
        let loads = self
            .workers
            .iter()
            .map(|worker| worker.load.load(Ordering::Relaxed));
        loads.sum()
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
