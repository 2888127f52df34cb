//! A client of PostgreSQL's protocol that sees every byte: blocking, and each read has a deadline.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use sha2::{Digest as _, Sha256};

use super::frames::{Frames, startup};
pub(crate) use super::message::{Message, Reply};

/// How long one read may take; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// A stream of bytes in both directions.
pub(crate) trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// What is learnt at the login.
#[derive(Clone, Debug, Default)]
pub(crate) struct Greeting {
    /// The codes of the authentication requests, e.g. 10, 11, 12, 0.
    pub(crate) authentication: Vec<u32>,
    /// The mechanisms offered by SASL.
    pub(crate) mechanisms: Vec<String>,
    /// ParameterStatus.
    pub(crate) parameters: Vec<(String, String)>,
    /// BackendKeyData, after its header.
    pub(crate) key: Vec<u8>,
    /// `NegotiateProtocolVersion`: the version, and the options that are not known.
    pub(crate) negotiated: Option<(u32, Vec<String>)>,
    /// Everything that came, in order.
    pub(crate) messages: Vec<Message>,
}

impl Greeting {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find_map(|(found, value)| (found == name).then_some(value.as_str()))
    }
}

/// Who logs in.
#[derive(Clone, Debug)]
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) database: &'a str,
    pub(crate) minor: u16,
    pub(crate) parameters: &'a [(&'a str, &'a str)],
}

impl<'a> Login<'a> {
    pub(crate) fn new(user: &'a str, password: &'a str, database: &'a str) -> Self {
        Self {
            user,
            password,
            database,
            minor: 0,
            parameters: &[],
        }
    }

    pub(crate) fn with(self, parameters: &'a [(&'a str, &'a str)]) -> Self {
        Self { parameters, ..self }
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut all = vec![("user", self.user), ("database", self.database)];
        all.extend(self.parameters);
        startup(self.minor, &all)
    }
}

/// What Amazon's drivers answer to authentication request 13: hash function, salt and nonce, the latter two with their
/// lengths.
fn digest_answer(request: &[u8], password: &[u8]) -> Vec<u8> {
    assert_eq!(request[..4], [0; 4], "SHA-256");
    let counted = |bytes: &[u8]| {
        let len = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
        (bytes[4..4 + len].to_vec(), bytes[4 + len..].to_vec())
    };
    let (salt, rest) = counted(&request[4..]);
    let (server_nonce, rest) = counted(&rest);
    assert!(rest.is_empty(), "nothing behind the nonce");
    let client_nonce = b"1700000000000";
    let inner = Sha256::new()
        .chain_update(password)
        .chain_update(&salt)
        .finalize();
    let digest = Sha256::new()
        .chain_update(inner)
        .chain_update(&server_nonce)
        .chain_update(client_nonce)
        .finalize();
    let mut answer = Vec::new();
    for part in [digest.as_slice(), client_nonce] {
        answer.extend(u32::try_from(part.len()).expect("few").to_be_bytes());
        answer.extend(part);
    }
    answer
}

/// A connection.
pub(crate) struct Wire {
    stream: Box<dyn Duplex>,
    socket: TcpStream,
    address: SocketAddr,
    /// What was learnt at the login.
    pub(crate) greeting: Greeting,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({})", self.address)
    }
}

impl Wire {
    /// Connects, and sends nothing.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_nodelay(true).expect("TCP");
        stream.set_read_timeout(Some(PATIENCE)).expect("TCP");
        stream.set_write_timeout(Some(PATIENCE)).expect("TCP");
        Self {
            socket: stream.try_clone().expect("another descriptor"),
            stream: Box::new(stream),
            address,
            greeting: Greeting::default(),
        }
    }

    /// Connects and logs in; panics when refused.
    pub(crate) fn login(address: SocketAddr, login: &Login<'_>) -> Self {
        match Self::try_login(address, login) {
            Ok(wire) => wire,
            Err(error) => panic!("the login of {} is refused: {error:?}", login.user),
        }
    }

    /// Connects and logs in.
    ///
    /// # Errors
    ///
    /// The server's error.
    pub(crate) fn try_login(address: SocketAddr, login: &Login<'_>) -> Result<Self, Message> {
        let mut wire = Self::connect(address);
        wire.authenticate(login)?;
        Ok(wire)
    }

    /// Asks for TLS and wraps the connection in it; panics when there is none.
    pub(crate) fn start_tls(self, config: Arc<rustls::ClientConfig>) -> Self {
        let mut wire = self;
        wire.send(&super::frames::SSL_REQUEST);
        assert_eq!(wire.byte(), Some(b'S'), "TLS is there");
        wire.wrap_in_tls(config)
    }

    /// Wraps the connection in TLS.
    pub(crate) fn wrap_in_tls(self, config: Arc<rustls::ClientConfig>) -> Self {
        let name = "localhost".try_into().expect("a name");
        let session = rustls::ClientConnection::new(config, name).expect("a TLS client");
        Self {
            stream: Box::new(rustls::StreamOwned::new(session, self.stream)),
            ..self
        }
    }

    /// Sends the start-up packet and does what the server asks for, up to the first ReadyForQuery.
    ///
    /// # Errors
    ///
    /// The server's error.
    pub(crate) fn authenticate(&mut self, login: &Login<'_>) -> Result<(), Message> {
        self.send(&login.packet());
        let mut scram: Option<ScramSha256> = None;
        loop {
            let message = self.read().expect("the server answers the login");
            self.greeting.messages.push(message.clone());
            let body = &message.body;
            match message.tag {
                b'E' => return Err(message),
                b'v' => {
                    let version = u32::from_be_bytes(body[0..4].try_into().expect("four bytes"));
                    let texts = Message {
                        tag: b'v',
                        body: body[8..].to_vec(),
                    };
                    let names = texts.texts().into_iter().filter(|name| !name.is_empty());
                    self.greeting.negotiated = Some((version, names.collect()));
                }
                b'S' => {
                    let texts = message.texts();
                    self.greeting
                        .parameters
                        .push((texts[0].clone(), texts[1].clone()));
                }
                b'K' => self.greeting.key = message.body,
                // kept with all the others
                b'N' => {}
                b'Z' => return Ok(()),
                b'R' => {
                    let code = u32::from_be_bytes(body[0..4].try_into().expect("four bytes"));
                    self.greeting.authentication.push(code);
                    let rest = &body[4..];
                    match code {
                        0 => {}
                        3 => self.send(&Frames::new().password(login.password.as_bytes())),
                        5 => {
                            let salt = rest.try_into().expect("a salt of four bytes");
                            let hash = md5_hash(login.user.as_bytes(), login.password.as_bytes(), salt);
                            self.send(&Frames::new().password(hash.as_bytes()));
                        }
                        13 => {
                            let answer = digest_answer(rest, login.password.as_bytes());
                            self.send(&Frames::new().frame(b'd', &[&answer]));
                        }
                        10 => {
                            let offered = Message {
                                tag: b'R',
                                body: rest.to_vec(),
                            };
                            self.greeting.mechanisms = offered
                                .texts()
                                .into_iter()
                                .filter(|name| !name.is_empty())
                                .collect();
                            let exchange =
                                ScramSha256::new(login.password.as_bytes(), ChannelBinding::unsupported());
                            let mut out = BytesMut::new();
                            frontend::sasl_initial_response("SCRAM-SHA-256", exchange.message(), &mut out)
                                .expect("a message");
                            self.send(&out);
                            scram = Some(exchange);
                        }
                        11 => {
                            let exchange = scram.as_mut().expect("an exchange began");
                            exchange.update(rest).expect("the server's challenge");
                            let mut out = BytesMut::new();
                            frontend::sasl_response(exchange.message(), &mut out).expect("a message");
                            self.send(&out);
                        }
                        12 => scram
                            .as_mut()
                            .expect("an exchange began")
                            .finish(rest)
                            .expect("the server knows the password too"),
                        _ => panic!("authentication request {code}"),
                    }
                }
                _ => panic!("unexpected at the login: {message:?}"),
            }
        }
    }

    /// How long one read may take from now on.
    pub(crate) fn patience(&self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).expect("TCP");
    }

    /// Says no more, and reads what is still said; a connection that is reset has ended, too.
    pub(crate) fn hang_up(mut self) -> Vec<u8> {
        // the server may have closed it first
        drop(self.socket.shutdown(std::net::Shutdown::Write));
        self.rest()
    }

    /// Only the socket; what was read ahead is none.
    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// The client's address.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.socket.local_addr().expect("TCP")
    }

    /// The server's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server takes it");
    }

    /// Sends bytes.
    ///
    /// # Errors
    ///
    /// When the server has closed the connection.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// One byte; `None` at the end of the stream.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        (self.stream.read(&mut byte).expect("a byte in time") == 1).then_some(byte[0])
    }

    /// Whether the server ends the connection without a word of its own.
    pub(crate) fn gone(&mut self) -> bool {
        let mut byte = [0];
        !matches!(self.stream.read(&mut byte), Ok(1))
    }

    /// Everything up to the end of the stream.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            // what was sent to a closed socket is answered by a reset
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => panic!("the stream does not end: {error}"),
        }
        bytes
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) fn read(&mut self) -> Option<Message> {
        let mut header = [0; 5];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                return None;
            }
            Err(error) => panic!("no message in time: {error}"),
        }
        let length = u32::from_be_bytes(header[1..].try_into().expect("four bytes"));
        let mut body = vec![0; length as usize - 4];
        self.stream
            .read_exact(&mut body)
            .expect("a whole message in time");
        Some(Message { tag: header[0], body })
    }

    /// Reads the next message and keeps nothing of it; its tag and its length, or `None` at the end of the stream.
    pub(crate) fn skip(&mut self) -> Option<(u8, usize)> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes(header[1..].try_into().expect("four bytes")) as usize - 4;
        let mut body = (&mut self.stream).take(length as u64);
        let copied = io::copy(&mut body, &mut io::sink()).expect("a whole message in time");
        (copied == length as u64).then_some((header[0], length))
    }

    /// Everything up to a message `tag`, with it, or up to the end of the stream.
    pub(crate) fn until(&mut self, tag: u8) -> Reply {
        let mut messages = Vec::new();
        while let Some(message) = self.read() {
            let last = message.tag == tag;
            messages.push(message);
            if last {
                break;
            }
        }
        Reply(messages)
    }

    /// Everything up to ReadyForQuery.
    pub(crate) fn ready(&mut self) -> Reply {
        self.until(b'Z')
    }

    /// Sends bytes and reads up to ReadyForQuery.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Reply {
        self.send(bytes);
        self.ready()
    }

    /// A simple query.
    pub(crate) fn query(&mut self, sql: &str) -> Reply {
        self.ask(&Frames::new().query(sql))
    }

    /// A simple query that must not fail.
    pub(crate) fn run(&mut self, sql: &str) -> Reply {
        let reply = self.query(sql);
        assert!(reply.error().is_none(), "{sql}: {reply:?}");
        reply
    }

    /// The only value of a simple query's answer.
    pub(crate) fn value(&mut self, sql: &str) -> String {
        self.run(sql).value()
    }

    /// An unnamed statement with text parameters, described; results as text or binary.
    pub(crate) fn extended(&mut self, sql: &str, parameters: &[Option<&[u8]>], results: &[i16]) -> Reply {
        self.ask(
            &Frames::new()
                .parse("", sql, &[])
                .bind("", "", &[], parameters, results)
                .describe_portal("")
                .execute("", 0)
                .sync(),
        )
    }

    /// What became of the session's last statement: verdict and reason.
    pub(crate) fn last(&mut self) -> (String, String) {
        let reply = self.run("SHOW tollgate.last");
        let rows = reply.rows();
        let row = rows.first().expect("a statement ran before");
        let text = |index: usize| row[index].clone().unwrap_or_default();
        (text(0), text(1))
    }

    /// The verdict on the session's last statement.
    pub(crate) fn verdict(&mut self) -> String {
        self.last().0
    }

    /// Sends the cancel request of this session by a connection of its own, and waits until the server closes it.
    pub(crate) fn cancel(&self) {
        let mut other = Self::connect(self.address);
        other.send(&super::frames::cancel(&self.greeting.key));
        assert!(other.rest().is_empty(), "a cancel request has no answer");
    }
}
