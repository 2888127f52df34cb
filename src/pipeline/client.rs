//! The client's socket with its two buffers.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Room that is made for reading while nothing is known of what comes. Small: it is what an idle client costs.
const IDLE_ROOM: usize = 2 * 1024;

/// Room that is made while more is surely coming.
const BUSY_ROOM: usize = 32 * 1024;

/// A larger buffer is not kept by an idle client.
const KEPT: usize = 16 * 1024;

/// A client's connection.
pub struct Client<S> {
    stream: S,
    inbox: BytesMut,
    outbox: BytesMut,
    /// What is still to be sent of a stream that ends within a message.
    torn: Option<BytesMut>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Client<S> {
    /// Over `stream`; `inbox` is what was already received and not read.
    pub fn new(stream: S, inbox: BytesMut) -> Self {
        Self {
            stream,
            inbox,
            outbox: BytesMut::new(),
            torn: None,
        }
    }

    /// Ends the stream behind what was put into the outbox so far, which is within a message: the client would take for
    /// a part of it whatever came next, also an error.
    pub fn tear(&mut self) {
        if self.torn.is_none() {
            self.torn = Some(std::mem::take(&mut self.outbox));
        }
    }

    /// What was received and not taken.
    pub fn inbox(&self) -> &[u8] {
        &self.inbox
    }

    /// Takes `count` bytes off the front of what was received.
    pub fn consume(&mut self, count: usize) {
        self.inbox.advance(count.min(self.inbox.len()));
    }

    /// Where answers are put; [`Self::poll_send`] and [`Self::flush`] send them.
    pub fn outbox(&mut self) -> &mut BytesMut {
        &mut self.outbox
    }

    /// Inbox and outbox at once.
    pub fn boxes(&mut self) -> (&[u8], &mut BytesMut) {
        (&self.inbox, &mut self.outbox)
    }

    /// Receives some bytes. Ready with how many; 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.capacity() == self.inbox.len() {
            let room = if self.inbox.is_empty() {
                IDLE_ROOM
            } else {
                BUSY_ROOM
            };
            self.inbox.reserve(room);
        }
        pin!(self.stream.read_buf(&mut self.inbox)).poll(cx)
    }

    /// Sends what waits in the outbox, then of `more` what fits: ready with how many bytes of `more` were sent.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn poll_send(&mut self, more: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let waiting = self.torn.as_mut().unwrap_or(&mut self.outbox);
        while !waiting.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => waiting.advance(sent),
            }
        }
        if self.torn.is_some() {
            self.outbox.clear();
            return Poll::Ready(Ok(more.len()));
        }
        if more.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match ready!(Pin::new(&mut self.stream).poll_write(cx, more))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            sent => Poll::Ready(Ok(sent)),
        }
    }

    /// Pushes what TLS holds back.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Sends everything in the outbox.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    ///
    /// # Cancel safety
    ///
    /// Safe: what is not sent stays.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            ready!(self.poll_send(&[], cx))?;
            self.poll_flush(cx)
        })
        .await
    }

    /// Gives back the memory of buffers that a large request or answer made grow.
    pub fn shrink(&mut self) {
        if self.outbox.is_empty() && self.outbox.capacity() > KEPT {
            self.outbox = BytesMut::new();
        }
        if self.inbox.is_empty() && self.inbox.capacity() > KEPT {
            self.inbox = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn nothing_is_put_behind_a_stream_that_ends_within_a_message() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut client = Client::new(near, BytesMut::new());
        client.outbox().extend_from_slice(b"D\0\0\0\x20half a row");
        client.tear();
        client.outbox().extend_from_slice(b"E\0\0\0\x09error");
        client.flush().await.unwrap();
        drop(client);
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"D\0\0\0\x20half a row");
    }
}
