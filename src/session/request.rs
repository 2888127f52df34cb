//! What a client sends before it waits, found in the bytes it sent. Pure.

use crate::wire::{self, FrontendTag, WireError};

/// Messages are held whole up to this size so that they can be read; what is longer is streamed.
pub const MAX_HELD: usize = 1 << 20;

/// Of a message that is streamed this much is held: a `Bind` begins with the names that it is about.
const MIN_BEGINNING: usize = 4 * 1024;

/// A message of a request: its place in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSpan {
    /// What it is.
    pub tag: FrontendTag,
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// Why a request ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A `Query` or a `FunctionCall`: it is answered up to ReadyForQuery.
    Call,
    /// A `Sync`.
    Sync,
    /// A `Flush`: answered, but the series goes on.
    Flush,
    /// The bytes held are as many as may be; no answer is due before the series goes on.
    Full,
    /// A message that is too long to be held: its header and what came of it stand at the end, `left` bytes follow.
    Long {
        /// Bytes still to come.
        left: usize,
    },
}

/// Whole messages at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The messages, in order.
    pub frames: Vec<FrameSpan>,
    /// Bytes in all.
    pub len: usize,
    /// Why it ends.
    pub ending: Ending,
}

impl Request {
    /// Whether its last message, which may be too long to be held, is a `Query` or a `FunctionCall`: it is answered up to
    /// ReadyForQuery without a `Sync`.
    pub fn calls(&self) -> bool {
        self.frames
            .last()
            .is_some_and(|frame| matches!(frame.tag, FrontendTag::Query | FrontendTag::FunctionCall))
    }

    /// Bytes of its last message that are still to come; 0 unless that is too long to be held.
    pub fn left(&self) -> usize {
        match self.ending {
            Ending::Long { left } => left,
            Ending::Call | Ending::Sync | Ending::Flush | Ending::Full => 0,
        }
    }
}

/// What is at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Collected {
    /// Not yet a request.
    More,
    /// A request.
    Request(Request),
    /// COPY data outside of a COPY: the server ignores it, so it is dropped. Its bytes, and how many more follow.
    Stray {
        /// Bytes at the front.
        len: usize,
        /// Bytes still to come.
        left: usize,
    },
    /// `Terminate`.
    Terminate,
}

/// Collects requests; remembers how far it looked.
#[derive(Debug, Default)]
pub struct Collector {
    frames: Vec<FrameSpan>,
    scanned: usize,
}

impl Collector {
    /// Looks at `buf`, which begins with what it began with at the last call unless that returned something else than
    /// [`Collected::More`]. COPY data belongs to the request before it, or to the series that is open at the backend
    /// (`in_series`); otherwise it is stray.
    ///
    /// # Errors
    ///
    /// A message that no client may send.
    pub fn collect(&mut self, buf: &[u8], in_series: bool) -> Result<Collected, WireError> {
        loop {
            let rest = buf.get(self.scanned..).unwrap_or_default();
            let Some((tag, header)) = wire::client_header(rest)? else {
                return Ok(Collected::More);
            };
            let (start, end) = (self.scanned, self.scanned + header.len);
            if self.frames.is_empty() {
                match tag {
                    FrontendTag::Terminate => return Ok(Collected::Terminate),
                    FrontendTag::CopyData | FrontendTag::CopyDone | FrontendTag::CopyFail if !in_series => {
                        let len = header.len.min(rest.len());
                        return Ok(Collected::Stray {
                            len,
                            left: header.len - len,
                        });
                    }
                    FrontendTag::Query
                    | FrontendTag::Parse
                    | FrontendTag::Bind
                    | FrontendTag::Describe
                    | FrontendTag::Execute
                    | FrontendTag::Close
                    | FrontendTag::Flush
                    | FrontendTag::Sync
                    | FrontendTag::FunctionCall
                    | FrontendTag::CopyData
                    | FrontendTag::CopyDone
                    | FrontendTag::CopyFail => {}
                }
            } else if tag == FrontendTag::Terminate {
                // what stands before it is sent first
                return Ok(self.take(start, Ending::Full));
            }
            if header.len > MAX_HELD {
                if !self.frames.is_empty() {
                    return Ok(self.take(start, Ending::Full));
                }
                if rest.len() < MIN_BEGINNING {
                    return Ok(Collected::More);
                }
                self.frames.push(FrameSpan {
                    tag,
                    start,
                    end: buf.len(),
                });
                return Ok(self.take(
                    buf.len(),
                    Ending::Long {
                        left: end - buf.len().min(end),
                    },
                ));
            }
            if rest.len() < header.len {
                return Ok(Collected::More);
            }
            self.frames.push(FrameSpan { tag, start, end });
            self.scanned = end;
            let ending = match tag {
                FrontendTag::Query | FrontendTag::FunctionCall => Ending::Call,
                FrontendTag::Sync => Ending::Sync,
                FrontendTag::Flush => Ending::Flush,
                FrontendTag::Parse
                | FrontendTag::Bind
                | FrontendTag::Describe
                | FrontendTag::Execute
                | FrontendTag::Close
                | FrontendTag::CopyData
                | FrontendTag::CopyDone
                | FrontendTag::CopyFail
                | FrontendTag::Terminate => {
                    if end < MAX_HELD {
                        continue;
                    }
                    Ending::Full
                }
            };
            return Ok(self.take(end, ending));
        }
    }

    /// Whether a part of a request has been seen.
    pub fn pending(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Gives back the storage of a request that is done, so that the next needs none.
    pub fn recycle(&mut self, mut request: Request) {
        if self.frames.is_empty() {
            request.frames.clear();
            self.frames = request.frames;
        }
    }

    fn take(&mut self, len: usize, ending: Ending) -> Collected {
        self.scanned = 0;
        Collected::Request(Request {
            frames: std::mem::take(&mut self.frames),
            len,
            ending,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(tag: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![tag];
        frame.extend(u32::try_from(len + 4).unwrap().to_be_bytes());
        frame.resize(len + 5, b'x');
        frame
    }

    /// Each request as the letters of its messages, and its ending.
    fn transcript(bytes: &[u8]) -> String {
        transcript_in(bytes, false)
    }

    fn transcript_in(bytes: &[u8], in_series: bool) -> String {
        let mut collector = Collector::default();
        let mut at = 0;
        let mut said = Vec::new();
        loop {
            match collector.collect(&bytes[at..], in_series) {
                Ok(Collected::More) => break,
                Ok(Collected::Request(request)) => {
                    let letters: String = request
                        .frames
                        .iter()
                        .map(|frame| char::from(bytes[at + frame.start]))
                        .collect();
                    said.push(format!("{letters}:{:?}", request.ending));
                    at += request.len;
                }
                Ok(Collected::Stray { len, left }) => {
                    said.push(format!("stray {left}"));
                    at += len;
                }
                Ok(Collected::Terminate) => {
                    said.push("terminate".to_owned());
                    break;
                }
                Err(error) => {
                    said.push(error.to_string());
                    break;
                }
            }
        }
        said.join(" ")
    }

    #[test]
    fn a_request_ends_where_the_client_waits() {
        for (tags, expected) in [
            ("Q", "Q:Call"),
            ("PBDES", "PBDES:Sync"),
            ("PBDESPBES", "PBDES:Sync PBES:Sync"),
            ("PDHBES", "PDH:Flush BES:Sync"),
            ("PBEQ", "PBEQ:Call"),
            ("F", "F:Call"),
            ("S", "S:Sync"),
            ("PBE", ""),
            ("dcf", "stray 0 stray 0 stray 0"),
            ("PBEdcS", "PBEdcS:Sync"),
            ("PBESdcS", "PBES:Sync stray 0 stray 0 S:Sync"),
            ("QX", "Q:Call terminate"),
            ("PX", "P:Full terminate"),
            ("Qz", "Q:Call invalid frontend message type 122"),
        ] {
            let bytes: Vec<u8> = tags.bytes().flat_map(|tag| frame(tag, 3)).collect();
            assert_eq!(transcript(&bytes), expected, "{tags}");
        }
    }

    #[test]
    fn copy_data_in_an_open_series_is_a_part_of_it() {
        for (tags, expected) in [
            ("ddcS", "ddcS:Sync"),
            ("dfPBES", "dfPBES:Sync"),
            ("dX", "d:Full terminate"),
        ] {
            let bytes: Vec<u8> = tags.bytes().flat_map(|tag| frame(tag, 3)).collect();
            assert_eq!(transcript_in(&bytes, true), expected, "{tags}");
        }
    }

    #[test]
    fn a_long_message_is_streamed() {
        let long = frame(b'Q', MAX_HELD);
        assert_eq!(
            transcript(&long[..MIN_BEGINNING]),
            format!("Q:Long {{ left: {} }}", long.len() - MIN_BEGINNING)
        );
        let mut batch = frame(b'P', 3);
        batch.extend(&long[..=MIN_BEGINNING]);
        assert_eq!(
            transcript(&batch),
            format!("P:Full Q:Long {{ left: {} }}", long.len() - MIN_BEGINNING - 1)
        );
        let many: Vec<u8> = (0..20).flat_map(|_| frame(b'B', MAX_HELD / 10)).collect();
        assert_eq!(transcript(&many), "BBBBBBBBBB:Full BBBBBBBBBB:Full");
        assert_eq!(transcript(b"Q\0\0\0\x01"), "invalid message length 1");
    }

    #[test]
    fn a_message_without_data_is_short() {
        for tag in *b"DECHScfX" {
            let (most, more) = (frame(tag, 10_000 - 4), frame(tag, 10_001 - 4));
            assert!(!transcript_in(&most, true).contains("longer"));
            // its header is enough
            assert_eq!(
                transcript_in(&more[..5], true),
                "message of 10001 bytes is longer than the 10000 allowed here"
            );
        }
        for tag in *b"QPBFd" {
            assert!(!transcript_in(&frame(tag, 10_001), true).contains("longer"));
        }
    }

    proptest! {
        #[test]
        fn where_the_stream_is_split_does_not_matter(tags in "[PBDECHSQ]{1,12}", cut in 0usize..200) {
            let bytes: Vec<u8> = tags.bytes().flat_map(|tag| frame(tag, 7)).collect();
            let mut collector = Collector::default();
            let first = collector.collect(&bytes[..cut.min(bytes.len())], false).unwrap();
            let again = if first == Collected::More { collector.collect(&bytes, false).unwrap() } else { first };
            prop_assert_eq!(again, Collector::default().collect(&bytes, false).unwrap());
        }
    }
}
