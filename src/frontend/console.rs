//! The console's side of the protocol: every request is answered here, nothing goes to a backend.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::admin::Console;
use crate::pipeline::{Client, Gateway, ServeError, SessionCard, answer_extended, answer_simple};
use crate::session::{Collected, Collector, Ending, Request, Statements};
use crate::wire::{self, FrontendTag, TransactionStatus};

/// Answers an administrator's commands until the end of the session.
pub(super) async fn run<S>(mut client: Client<S>, card: &SessionCard, gateway: Arc<Gateway>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut console = Console::new(gateway, card.login.user.clone());
    let mut collector = Collector::default();
    let mut statements = Statements::default();
    let mut skipping = false;
    loop {
        let request = match collector.collect(client.inbox(), false) {
            Ok(Collected::Request(request)) => request,
            Ok(Collected::Terminate) => return,
            Ok(Collected::Stray { len, left }) => {
                client.consume(len);
                if !discard(&mut client, card, left).await {
                    break;
                }
                continue;
            }
            Ok(Collected::More) => {
                if client.flush().await.is_err() || !wait(&mut client, card).await {
                    break;
                }
                continue;
            }
            Err(error) => {
                wire::error_response(&ServeError::from(error), client.outbox());
                break;
            }
        };
        if let Err(error) = answer(
            &request,
            &mut client,
            &mut console,
            &mut statements,
            &mut skipping,
        ) {
            wire::error_response(&error, client.outbox());
            break;
        }
        client.consume(request.len);
        collector.recycle(request);
    }
    if card.signals.draining() {
        wire::error_response(&ServeError::Shutdown, client.outbox());
    }
    // the last words; there is nobody to tell if they do not arrive
    drop(client.flush().await);
}

/// Waits for the client; false when it is gone or the session must end.
async fn wait<S: AsyncRead + AsyncWrite + Unpin + Send>(client: &mut Client<S>, card: &SessionCard) -> bool {
    poll_fn(|cx| {
        card.signals.register(cx);
        if card.signals.draining() {
            return Poll::Ready(false);
        }
        client
            .poll_receive(cx)
            .map(|received| received.is_ok_and(|count| count > 0))
    })
    .await
}

/// Throws away the next `left` bytes, the rest of a message that nobody asked for; false as [`wait`] has it.
async fn discard<S>(client: &mut Client<S>, card: &SessionCard, mut left: usize) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    loop {
        let here = left.min(client.inbox().len());
        client.consume(here);
        left -= here;
        if left == 0 {
            return true;
        }
        if !wait(client, card).await {
            return false;
        }
    }
}

fn answer<S: AsyncRead + AsyncWrite + Unpin + Send>(
    request: &Request,
    client: &mut Client<S>,
    console: &mut Console,
    statements: &mut Statements,
    skipping: &mut bool,
) -> Result<(), ServeError> {
    let (bytes, out) = client.boxes();
    let bytes = bytes.get(..request.len).unwrap_or_default();
    if matches!(request.ending, Ending::Long { .. }) {
        return Err(ServeError::Unsupported("a command of more than a megabyte"));
    }
    if *skipping {
        if request.ending == Ending::Sync {
            *skipping = false;
            wire::ready_for_query(TransactionStatus::Idle, out);
        }
        return Ok(());
    }
    if let [frame] = request.frames.as_slice()
        && frame.tag == FrontendTag::Query
    {
        answer_simple(wire::query_text(bytes)?, console, out);
        wire::ready_for_query(TransactionStatus::Idle, out);
        return Ok(());
    }
    *skipping = !answer_extended(request, bytes, statements, console, out)?;
    Ok(())
}
