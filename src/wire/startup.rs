//! What a client sends before login: packets without a tag, then passwords.

use bytes::Bytes;

use super::frame::{Body, WireError};

/// The longest start-up packet that PostgreSQL takes (`MAX_STARTUP_PACKET_LENGTH`), in bytes.
pub const MAX_STARTUP: usize = 10_000;

const CANCEL_CODE: u32 = 0x04d2_162e;
const SSL_CODE: u32 = 0x04d2_162f;
const GSS_CODE: u32 = 0x04d2_1630;

/// The protocol version a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Always 3.
    pub major: u16,
    /// 0, 2, or newer, which is answered with the newest we have.
    pub minor: u16,
}

/// What names a session for a cancel request: an id and a secret of 4 to 256 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// The "process id" of `BackendKeyData`.
    pub id: u32,
    /// The secret.
    pub secret: Bytes,
}

/// A start-up packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartupPacket {
    /// The version asked for.
    pub protocol: Protocol,
    /// Names and values, in the client's order.
    pub parameters: Vec<(String, String)>,
}

/// The first packet, or the one after a refused encryption.
#[derive(Clone, PartialEq, Eq)]
pub enum Initial {
    /// `SSLRequest`.
    Ssl,
    /// `GSSENCRequest`.
    GssEncryption,
    /// `CancelRequest`.
    Cancel(CancelKey),
    /// A start-up packet.
    Startup(StartupPacket),
}

/// Reads the packet at the front of `buf` and tells its length; `None` while it is not whole.
///
/// # Errors
///
/// A length out of range, another protocol than 3, or parameters that are not pairs of UTF-8 text.
pub fn initial(buf: &[u8]) -> Result<Option<(Initial, usize)>, WireError> {
    let Some((announced, rest)) = buf.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let announced = u32::from_be_bytes(*announced);
    let len = announced as usize;
    if len < 8 {
        return Err(WireError::LengthTooSmall(announced));
    }
    if len > MAX_STARTUP {
        return Err(WireError::TooLong {
            len,
            max: MAX_STARTUP,
        });
    }
    let Some(packet) = rest.get(..len - 4) else {
        return Ok(None);
    };
    let mut body = Body::bare(packet, "startup packet");
    let code = body.u32()?;
    let packet = match code {
        SSL_CODE => Initial::Ssl,
        GSS_CODE => Initial::GssEncryption,
        CANCEL_CODE => {
            let id = body.u32()?;
            let secret = Bytes::copy_from_slice(body.rest());
            if !(4..=256).contains(&secret.len()) {
                return Err(body.malformed());
            }
            Initial::Cancel(CancelKey { id, secret })
        }
        _ => {
            let [a, b, c, d] = code.to_be_bytes();
            let protocol = Protocol {
                major: u16::from_be_bytes([a, b]),
                minor: u16::from_be_bytes([c, d]),
            };
            if protocol.major != 3 {
                return Err(WireError::UnsupportedProtocol(protocol.major, protocol.minor));
            }
            Initial::Startup(StartupPacket {
                protocol,
                parameters: parameters(&mut body)?,
            })
        }
    };
    Ok(Some((packet, len)))
}

fn parameters(body: &mut Body<'_>) -> Result<Vec<(String, String)>, WireError> {
    let mut parameters = Vec::new();
    loop {
        let name = text(body)?;
        if name.is_empty() {
            break;
        }
        parameters.push((name, text(body)?));
    }
    if body.rest().is_empty() {
        Ok(parameters)
    } else {
        Err(body.malformed())
    }
}

fn text(body: &mut Body<'_>) -> Result<String, WireError> {
    let bytes = body.text()?;
    String::from_utf8(bytes.to_vec()).map_err(|_| body.malformed())
}

/// The password in a `PasswordMessage` (cleartext or MD5), without its NUL.
///
/// # Errors
///
/// No NUL, or bytes after it.
pub fn password_text(frame: &[u8]) -> Result<&[u8], WireError> {
    let mut body = Body::of(frame, "PasswordMessage");
    let text = body.text()?;
    body.end()?;
    Ok(text)
}

/// Mechanism and data of a `SASLInitialResponse`.
///
/// # Errors
///
/// A body that is too short or too long.
pub fn sasl_initial(frame: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let mut body = Body::of(frame, "SASLInitialResponse");
    let mechanism = body.text()?;
    let len = usize::try_from(body.i32()?).unwrap_or(0);
    let data = body.take(len)?;
    body.end()?;
    Ok((mechanism, data))
}

/// Digest and client's nonce of a `DigestResponse`, the answer of Amazon's drivers to authentication request 13.
///
/// # Errors
///
/// A body that is too short or too long.
pub fn digest_response(frame: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let mut body = Body::of(frame, "DigestResponse");
    let mut counted = || {
        let len = usize::try_from(body.i32()?).map_err(|_| body.malformed())?;
        body.take(len)
    };
    let (digest, nonce) = (counted()?, counted()?);
    body.end()?;
    Ok((digest, nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(body: &[u8]) -> Vec<u8> {
        let mut packet = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
        packet.extend(body);
        packet
    }

    #[test]
    fn a_startup_packet_is_read_at_any_split() {
        let whole = packet(b"\0\x03\0\0user\0ana\0database\0dev\0\0");
        for cut in 0..whole.len() {
            assert!(initial(&whole[..cut]).unwrap().is_none(), "cut at {cut}");
        }
        let Some((Initial::Startup(startup), len)) = initial(&whole).unwrap() else {
            panic!("not a startup packet")
        };
        assert_eq!(len, whole.len());
        assert_eq!(
            startup.parameters,
            [
                ("user".to_owned(), "ana".to_owned()),
                ("database".to_owned(), "dev".to_owned())
            ]
        );
    }

    #[test]
    fn what_is_no_startup_packet_is_refused() {
        for (bytes, error) in [
            (
                packet(b"\0\x02\0\0user\0ana\0\0"),
                WireError::UnsupportedProtocol(2, 0),
            ),
            (
                packet(b"\0\x03\0\0user\0ana"),
                WireError::Malformed("startup packet"),
            ),
            (
                packet(b"\0\x03\0\0user\0ana\0\0x"),
                WireError::Malformed("startup packet"),
            ),
            (
                packet(b"\0\x03\0\0us\xffr\0ana\0\0"),
                WireError::Malformed("startup packet"),
            ),
            (
                packet(b"\x04\xd2\x16\x2e\0\0\0\x01ab"),
                WireError::Malformed("startup packet"),
            ),
            (vec![0, 0, 0, 7], WireError::LengthTooSmall(7)),
            (
                vec![0x7f, 0, 0, 0],
                WireError::TooLong {
                    len: 0x7f00_0000,
                    max: MAX_STARTUP,
                },
            ),
            (
                b"GET / HTTP/1.1\r\n".to_vec(),
                WireError::TooLong {
                    len: 0x4745_5420,
                    max: MAX_STARTUP,
                },
            ),
        ] {
            assert_eq!(initial(&bytes).err(), Some(error), "{bytes:?}");
        }
    }
}
