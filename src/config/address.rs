//! Where something listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A TCP address, or a PostgreSQL server's Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `host:port`.
    Tcp {
        /// A name or an IP address; IPv6 without brackets.
        host: String,
        /// The port; 0 only where something listens, and then any free one.
        port: u16,
    },
    /// The socket `<directory>/.s.PGSQL.<port>`, as libpq names it.
    Unix {
        /// An absolute path.
        directory: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
}

/// PostgreSQL's own port, which names a Unix socket when no other is given.
const DEFAULT_SOCKET_PORT: u16 = 5432;

impl Address {
    /// The path of the Unix socket, if it is one.
    pub fn socket(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix { directory, port } => Some(directory.join(format!(".s.PGSQL.{port}"))),
        }
    }

    /// Whether it is on this machine, as far as its text says: a Unix socket, a loopback address, or `localhost`.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { host, .. } => {
                let address = host.parse::<std::net::IpAddr>();
                host.eq_ignore_ascii_case("localhost")
                    || address.is_ok_and(|address| address.to_canonical().is_loopback())
            }
        }
    }

    /// The port, which also names a Unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } | Self::Unix { port, .. } => *port,
        }
    }
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No colon, or nothing behind it.
    #[error("it has no port")]
    NoPort,
    /// What is behind the colon is not a port.
    #[error("its port is not a number from 0 to 65535")]
    Port,
    /// Nothing, or nonsense, before the colon.
    #[error("its host is not a name or an IP address; an IPv6 address stands in brackets")]
    Host,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('/') {
            return match text.rsplit_once(':') {
                Some((directory, port)) if !port.contains('/') => Ok(Self::Unix {
                    directory: directory.into(),
                    port: port_of(port)?,
                }),
                Some(_) | None => Ok(Self::Unix {
                    directory: text.into(),
                    port: DEFAULT_SOCKET_PORT,
                }),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(host) if host.parse::<std::net::Ipv6Addr>().is_ok() => host,
            Some(_) => return Err(AddressError::Host),
            None => host,
        };
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || bracketed.is_none() && !host.chars().all(named) {
            return Err(AddressError::Host);
        }
        Ok(Self::Tcp {
            host: host.to_owned(),
            port: port_of(port)?,
        })
    }
}

fn port_of(text: &str) -> Result<u16, AddressError> {
    match text {
        "" => Err(AddressError::NoPort),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().map_err(|_| AddressError::Port),
        _ => Err(AddressError::Port),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix {
                directory,
                port: DEFAULT_SOCKET_PORT,
            } => write!(f, "{}", directory.display()),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for text in [
            "127.0.0.1:5439",
            "[::1]:5432",
            "wh.example.com:0",
            "/run/postgresql",
            "/tmp/a b:6000",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let socket = "/tmp:6000".parse::<Address>().unwrap().socket();
        assert_eq!(socket, Some(PathBuf::from("/tmp/.s.PGSQL.6000")));
        assert_eq!("/run/a:b/c".parse::<Address>().unwrap().port(), 5432);
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, error) in [
            ("localhost", AddressError::NoPort),
            ("localhost:", AddressError::NoPort),
            ("localhost:x", AddressError::Port),
            ("localhost:+1", AddressError::Port),
            ("localhost:65536", AddressError::Port),
            (":5432", AddressError::Host),
            ("::1:5432", AddressError::Host),
            ("[::1:5432", AddressError::Host),
            ("[x]:5432", AddressError::Host),
            ("a b:5432", AddressError::Host),
            ("postgres://h:5432", AddressError::Host),
            ("/tmp:x", AddressError::Port),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
