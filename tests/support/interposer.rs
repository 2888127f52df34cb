//! Somebody before a server who knows the protocol: a proxy that may put other words into either side's mouth.

use std::io::{self, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::message::Message;

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who connects.
    Client,
    /// Who listens.
    Server,
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said<'a> {
    pub(crate) by: Side,
    pub(crate) message: &'a Message,
    /// The start-up packet of the connection, behind its length.
    pub(crate) login: &'a [u8],
}

/// What becomes of a message: these bytes, or itself.
type Change = dyn Fn(Said<'_>) -> Option<Vec<u8>> + Send + Sync;

/// Gives the address of a proxy before `target`, to which nobody talks in TLS. Each message goes through `change`, but for the
/// start-up packets. It ends with the test's process.
pub(crate) fn interposed(
    target: SocketAddr,
    change: impl Fn(Said<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let change: Arc<Change> = Arc::new(change);
    thread::spawn(move || {
        for client in listener.incoming() {
            let change = Arc::clone(&change);
            // who goes away again is none of its business
            thread::spawn(move || drop(client.and_then(|client| between(client, target, &*change))));
        }
    });
    address
}

fn between(mut client: TcpStream, target: SocketAddr, change: &Change) -> io::Result<()> {
    let login = body(&mut client)?;
    let mut server = TcpStream::connect(target)?;
    server.write_all(&framed(&login))?;
    thread::scope(|scope| {
        for (by, from, to) in [(Side::Client, &client, &server), (Side::Server, &server, &client)] {
            let login = &login;
            scope.spawn(move || {
                // however it ends, the other side hears that there is no more, and ends too
                drop(carry(by, from, to, login, change));
                drop(to.shutdown(Shutdown::Write));
            });
        }
    });
    Ok(())
}

fn carry(
    by: Side,
    mut from: &TcpStream,
    mut to: &TcpStream,
    login: &[u8],
    change: &Change,
) -> io::Result<()> {
    to.set_nodelay(true)?;
    loop {
        let mut tag = [0];
        from.read_exact(&mut tag)?;
        let [tag] = tag;
        let body = body(&mut from)?;
        let message = &Message { tag, body };
        let bytes = change(Said { by, message, login });
        to.write_all(&bytes.unwrap_or_else(|| bytes_of(message)))?;
    }
}

/// What stands behind a length.
fn body(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length).checked_sub(4);
    let mut body = vec![0; length.ok_or(io::ErrorKind::InvalidData)? as usize];
    from.read_exact(&mut body)?;
    Ok(body)
}

/// `body` behind its length.
fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a length");
    [&length.to_be_bytes()[..], body].concat()
}

/// A message as it is on the wire.
pub(crate) fn bytes_of(message: &Message) -> Vec<u8> {
    [&[message.tag][..], &framed(&message.body)].concat()
}
