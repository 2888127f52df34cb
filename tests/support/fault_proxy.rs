//! A network that fails: a proxy for TCP between a client and the gateway, or between the gateway and its backend.
//!
//! Each direction has a [`Fault`], which can be changed at any time and holds for the connections that are there and
//! for those that come. Besides, all connections can be cut at once. What goes through is not understood.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Which bytes a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the side that connects to the side that listens.
    Up,
    /// Back.
    Down,
}

/// What becomes of the bytes of one direction. Counts are of each connection, from when the fault was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They go on.
    None,
    /// They go on one at a time.
    Dribble,
    /// Each piece waits before it goes on.
    Delay(Duration),
    /// After so many the connection is closed on both sides.
    CutAfter(usize),
    /// After so many the connection is reset on both sides.
    ResetAfter(usize),
    /// After so many this direction ends as if its sender had no more to say; the other one goes on.
    HalfOpenAfter(usize),
    /// After so many nothing goes on any more, and nobody is told: as if the network had gone.
    BlackholeAfter(usize),
}

/// How all connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Not.
    Never,
    Closed,
    Reset,
}

/// The faults of both directions, and how many times they were set.
#[derive(Clone, Copy, Debug)]
struct Weather {
    up: Fault,
    down: Fault,
    /// Counts the changes, so that a fault that is set again begins anew.
    since: u64,
    /// Connections older than this change end.
    ended: u64,
    end: End,
}

/// The proxy; it ends with this value, and its connections are then reset.
pub(crate) struct FaultProxy {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    weather: Arc<watch::Sender<Weather>>,
    open: Arc<AtomicUsize>,
    half_closed: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

impl FaultProxy {
    /// Before `target`; everything goes through.
    pub(crate) fn before(target: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fault-proxy")
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (weather, _) = watch::channel(Weather {
            up: Fault::None,
            down: Fault::None,
            since: 0,
            ended: 0,
            end: End::Never,
        });
        let weather = Arc::new(weather);
        let (open, half_closed) = (Arc::default(), Arc::default());
        let target = Arc::new(Mutex::new(target));
        let network = Network {
            target: Arc::clone(&target),
            weather: Arc::clone(&weather),
            open: Arc::clone(&open),
            half_closed: Arc::clone(&half_closed),
        };
        runtime.spawn(network.accept(listener));
        Self {
            address,
            target,
            weather,
            open,
            half_closed,
            runtime: Some(runtime),
        }
    }

    /// Where to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are there.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// How many directions have ended by [`Fault::HalfOpenAfter`] so far.
    pub(crate) fn half_closed(&self) -> usize {
        self.half_closed.load(Ordering::Acquire)
    }

    /// Sets the fault of one direction.
    pub(crate) fn set(&self, direction: Direction, fault: Fault) {
        self.weather.send_modify(|weather| {
            weather.since += 1;
            match direction {
                Direction::Up => weather.up = fault,
                Direction::Down => weather.down = fault,
            }
        });
    }

    /// Brings the connections to come to another server, as a name does that is resolved anew.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().expect("the target") = target;
    }

    /// Lets everything through again.
    pub(crate) fn heal(&self) {
        self.set(Direction::Up, Fault::None);
        self.set(Direction::Down, Fault::None);
    }

    /// Closes every connection that is there.
    pub(crate) fn cut(&self) {
        self.end(End::Closed);
    }

    /// Resets every connection that is there.
    pub(crate) fn reset(&self) {
        self.end(End::Reset);
    }

    fn end(&self, end: End) {
        self.weather.send_modify(|weather| {
            weather.since += 1;
            weather.ended = weather.since;
            weather.end = end;
        });
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the connections share.
#[derive(Clone)]
struct Network {
    target: Arc<Mutex<SocketAddr>>,
    weather: Arc<watch::Sender<Weather>>,
    open: Arc<AtomicUsize>,
    half_closed: Arc<AtomicUsize>,
}

impl Network {
    async fn accept(self, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            let network = self.clone();
            tokio::spawn(async move {
                network.open.fetch_add(1, Ordering::AcqRel);
                // who connects sees how it ends
                drop(network.carry(client).await);
                network.open.fetch_sub(1, Ordering::AcqRel);
            });
        }
    }

    async fn carry(&self, client: TcpStream) -> io::Result<()> {
        let weather = self.weather.subscribe();
        let born = weather.borrow().since;
        let target = *self.target.lock().expect("the target");
        let server = TcpStream::connect(target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ((client_reads, client_writes), (server_reads, server_writes)) =
            (client.into_split(), server.into_split());
        let mut up = Pump {
            from: client_reads,
            to: server_writes,
            weather: weather.clone(),
            direction: Direction::Up,
            born,
            half_closed: &self.half_closed,
        };
        let mut down = Pump {
            from: server_reads,
            to: client_writes,
            weather,
            direction: Direction::Down,
            born,
            half_closed: &self.half_closed,
        };
        let stop = {
            let (up_ends, down_ends) = (up.run(), down.run());
            tokio::pin!(up_ends, down_ends);
            let (first, upwards) = tokio::select! {
                stop = &mut up_ends => (stop, true),
                stop = &mut down_ends => (stop, false),
            };
            match first {
                // the other direction goes on
                Stop::End if upwards => down_ends.await,
                Stop::End => up_ends.await,
                Stop::Close | Stop::Reset => first,
            }
        };
        if stop == Stop::Reset {
            up.from.as_ref().set_zero_linger()?;
            down.from.as_ref().set_zero_linger()?;
        }
        Ok(())
    }
}

/// Why a direction stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Its sender has no more to say.
    End,
    /// The connection is to be closed.
    Close,
    /// The connection is to be reset.
    Reset,
}

/// One direction of a connection.
struct Pump<'a> {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    weather: watch::Receiver<Weather>,
    direction: Direction,
    /// The change of weather that it began in.
    born: u64,
    half_closed: &'a AtomicUsize,
}

impl Pump<'_> {
    async fn run(&mut self) -> Stop {
        let mut buffer = vec![0; 16 * 1024];
        let mut counted_from = 0;
        let mut passed = 0;
        loop {
            let weather = *self.weather.borrow_and_update();
            if weather.ended > self.born {
                return match weather.end {
                    End::Reset => Stop::Reset,
                    End::Closed | End::Never => Stop::Close,
                };
            }
            if counted_from != weather.since {
                counted_from = weather.since;
                passed = 0;
            }
            let fault = match self.direction {
                Direction::Up => weather.up,
                Direction::Down => weather.down,
            };
            let most = match fault {
                Fault::None | Fault::Delay(_) => buffer.len(),
                Fault::Dribble => 1,
                Fault::CutAfter(count)
                | Fault::ResetAfter(count)
                | Fault::HalfOpenAfter(count)
                | Fault::BlackholeAfter(count) => buffer.len().min(count.saturating_sub(passed)),
            };
            if most == 0 {
                match fault {
                    Fault::ResetAfter(_) => return Stop::Reset,
                    Fault::HalfOpenAfter(_) => {
                        // the receiver may be gone already
                        drop(self.to.shutdown().await);
                        self.half_closed.fetch_add(1, Ordering::AcqRel);
                        return Stop::End;
                    }
                    Fault::BlackholeAfter(_) => {
                        if self.weather.changed().await.is_err() {
                            return Stop::Close;
                        }
                        continue;
                    }
                    Fault::None | Fault::Dribble | Fault::Delay(_) | Fault::CutAfter(_) => {
                        return Stop::Close;
                    }
                }
            }
            let read = tokio::select! {
                biased;
                changed = self.weather.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return Stop::Close,
                },
                read = self.from.read(&mut buffer[..most]) => read,
            };
            let count = match read {
                Ok(0) => {
                    drop(self.to.shutdown().await);
                    return Stop::End;
                }
                Ok(count) => count,
                // what was reset on one side is reset on the other
                Err(_) => return Stop::Reset,
            };
            if let Fault::Delay(delay) = fault {
                tokio::time::sleep(delay).await;
            }
            let written = tokio::select! {
                written = self.to.write_all(&buffer[..count]) => written.is_ok(),
                // a receiver that does not read must not keep the connection from being ended
                () = ended(self.weather.clone(), self.born) => continue,
            };
            if !written {
                return Stop::Reset;
            }
            passed += count;
        }
    }
}

/// Waits until the connections of the change `born` and before are to end.
async fn ended(mut weather: watch::Receiver<Weather>, born: u64) {
    if weather.wait_for(|weather| weather.ended > born).await.is_err() {
        std::future::pending::<()>().await;
    }
}
