//! An answer from memory, in the words of the protocol that the client speaks.

use bytes::{Bytes, BytesMut};

use super::facts::{Form, SinglePortal};
use crate::cache::Entry;
use crate::session::Request;
use crate::wire::{self, FrontendTag, TargetKind, TransactionStatus};

/// What a client needs beside the entry to be answered from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// The types of parameters, which only the backend knows.
    ParameterTypes,
    /// The entry has no RowDescription, or not a sound one.
    RowDescription,
}

/// Whether a portal's answer needs a RowDescription: the portal or its statement is described.
pub(super) fn wants_description(request: &Request) -> bool {
    request
        .frames
        .iter()
        .any(|frame| frame.tag == FrontendTag::Describe)
}

/// Whether `entry` has what [`replay`] will need of it.
pub(super) fn replays(request: &Request, form: Form, entry: &Entry) -> bool {
    let description = entry.row_description.as_ref();
    match form {
        Form::Simple => description.is_some(),
        Form::Series => false,
        Form::Portal(_) => {
            !wants_description(request)
                || description.is_some_and(|frame| wire::with_formats(frame, &[]).is_ok())
        }
    }
}

/// Rows up to this size are copied into one write with what stands around them; larger ones are sent from where they lie.
const SMALL: usize = 32 * 1024;

/// What is sent after the bytes in the buffer: the rows where they are large, then the rest.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Rows, from memory.
    pub(super) rows: Bytes,
    /// What stands behind them.
    pub(super) tail: BytesMut,
}

/// Writes the answer to `request` from `entry`. Nothing is written on an error.
///
/// # Errors
///
/// The entry alone does not suffice.
pub(super) fn replay(
    request: &Request,
    bytes: &[u8],
    form: Form,
    parameters: u16,
    entry: &Entry,
    status: TransactionStatus,
    out: &mut BytesMut,
) -> Result<Rest, Shortage> {
    let SinglePortal { bind, .. } = match form {
        Form::Simple | Form::Series => {
            let description = entry.row_description.as_ref().ok_or(Shortage::RowDescription)?;
            out.extend_from_slice(description);
            let mut end = BytesMut::new();
            end.extend_from_slice(&entry.command_complete);
            wire::ready_for_query(status, &mut end);
            return Ok(join(entry, end, out));
        }
        Form::Portal(portal) => portal,
    };
    let frame = |index: usize| {
        let frame = request.frames.get(index)?;
        bytes.get(frame.start..frame.end)
    };
    let formats = frame(bind)
        .and_then(|frame| wire::bind(frame).ok())
        .map(|bind| bind.result_formats);
    let described = |formats: &[u8]| -> Result<Bytes, Shortage> {
        let description = entry.row_description.as_ref().ok_or(Shortage::RowDescription)?;
        wire::with_formats(description, formats).map_err(|_| Shortage::RowDescription)
    };
    let before = out.len();
    let mut write = || {
        // what stands behind the rows
        let mut tail: Option<BytesMut> = None;
        for (index, span) in request.frames.iter().enumerate() {
            let out = tail.as_mut().unwrap_or(out);
            if span.tag == FrontendTag::Execute {
                let end = tail.insert(BytesMut::with_capacity(64));
                end.extend_from_slice(&entry.command_complete);
                continue;
            }
            if span.tag != FrontendTag::Describe {
                confirm(span.tag, status, out);
                continue;
            }
            let statement = frame(index)
                .and_then(|frame| wire::target(frame).ok())
                .is_some_and(|target| target.kind == TargetKind::Statement);
            if statement {
                if parameters > 0 {
                    return Err(Shortage::ParameterTypes);
                }
                wire::parameter_description(&[], out);
                out.extend_from_slice(&described(&[])?);
            } else {
                out.extend_from_slice(&described(formats.unwrap_or_default())?);
            }
        }
        Ok(tail.unwrap_or_default())
    };
    match write() {
        Ok(tail) => Ok(join(entry, tail, out)),
        Err(shortage) => {
            out.truncate(before);
            Err(shortage)
        }
    }
}

/// Answers a message that is answered in the same way whatever was asked for; to others it says nothing.
pub(super) fn confirm(tag: FrontendTag, status: TransactionStatus, out: &mut BytesMut) {
    match tag {
        FrontendTag::Parse => wire::simple(b'1', out),
        FrontendTag::Bind => wire::simple(b'2', out),
        FrontendTag::Close => wire::simple(b'3', out),
        FrontendTag::Sync => wire::ready_for_query(status, out),
        FrontendTag::Query
        | FrontendTag::Describe
        | FrontendTag::Execute
        | FrontendTag::Flush
        | FrontendTag::FunctionCall
        | FrontendTag::CopyData
        | FrontendTag::CopyDone
        | FrontendTag::CopyFail
        | FrontendTag::Terminate => {}
    }
}

fn join(entry: &Entry, tail: BytesMut, out: &mut BytesMut) -> Rest {
    if entry.rows.len() > SMALL {
        return Rest {
            rows: entry.rows.clone(),
            tail,
        };
    }
    out.extend_from_slice(&entry.rows);
    out.extend_from_slice(&tail);
    Rest::default()
}
