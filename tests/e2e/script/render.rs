//! A server's messages as a script writes them.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::wire::{Message, Reply};

/// Longer values are cut: their beginning and their length tell enough.
const SHOWN: usize = 300;

/// The messages of a server by their letters.
pub(super) const REPLIES: [(u8, &str); 24] = [
    (b'1', "ParseComplete"),
    (b'2', "BindComplete"),
    (b'3', "CloseComplete"),
    (b'A', "NotificationResponse"),
    (b'C', "CommandComplete"),
    (b'c', "CopyDone"),
    (b'D', "DataRow"),
    (b'd', "CopyData"),
    (b'E', "ErrorResponse"),
    (b'G', "CopyInResponse"),
    (b'H', "CopyOutResponse"),
    (b'I', "EmptyQueryResponse"),
    (b'K', "BackendKeyData"),
    (b'N', "NoticeResponse"),
    (b'n', "NoData"),
    (b'R', "Authentication"),
    (b'S', "ParameterStatus"),
    (b's', "PortalSuspended"),
    (b'T', "RowDescription"),
    (b't', "ParameterDescription"),
    (b'V', "FunctionCallResponse"),
    (b'v', "NegotiateProtocolVersion"),
    (b'W', "CopyBothResponse"),
    (b'Z', "ReadyForQuery"),
];

/// Bytes as a script writes them.
fn shown(bytes: &[u8]) -> String {
    if let Some(beginning) = bytes.get(..SHOWN).filter(|_| bytes.len() > SHOWN) {
        return format!("{}... {} bytes", shown(&beginning[..20]), bytes.len());
    }
    match std::str::from_utf8(bytes) {
        Ok(text)
            if text
                .chars()
                .all(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r')) =>
        {
            Value::from(text).to_string()
        }
        _ => {
            let mut digits = String::new();
            for byte in bytes {
                write!(digits, "{byte:02x}").expect("a text");
            }
            format!("{{\"hex\": \"{digits}\"}}")
        }
    }
}

/// An answer as text, one message a line.
pub(crate) fn rendered(reply: &Reply) -> String {
    reply.0.iter().map(|message| render(message) + "\n").collect()
}

fn render(message: &Message) -> String {
    let name = REPLIES
        .iter()
        .find_map(|(tag, name)| (*tag == message.tag).then_some(*name));
    let Some(name) = name else {
        return format!("{message:?}");
    };
    let body = &message.body;
    let detail = match message.tag {
        b'D' => {
            let columns: Vec<String> = message
                .columns()
                .iter()
                .map(|value| value.as_deref().map_or_else(|| "null".to_owned(), shown))
                .collect();
            format!("[{}]", columns.join(", "))
        }
        b'd' => shown(body),
        b'C' => message.texts().swap_remove(0),
        b'Z' => body.escape_ascii().to_string(),
        b'T' => row_description(body),
        b't' => body[2..]
            .chunks(4)
            .map(|oid| u32::from_be_bytes(oid.try_into().expect("four bytes")).to_string())
            .collect::<Vec<_>>()
            .join(" "),
        b'S' => {
            let texts = message.texts();
            format!("{} = {}", texts[0], shown(texts[1].as_bytes()))
        }
        b'E' | b'N' => message
            .fields()
            .into_iter()
            // where the server's source says it differs between versions
            .filter(|(letter, _)| !matches!(letter, 'V' | 'F' | 'L' | 'R'))
            .map(|(letter, text)| format!("{letter}={}", shown(text.as_bytes())))
            .collect::<Vec<_>>()
            .join(" "),
        b'A' => {
            let texts = Message {
                tag: b'A',
                body: body[4..].to_vec(),
            };
            texts.texts().join(" ").trim_end().to_owned()
        }
        b'G' | b'H' => format!("{} {:?}", body[0], &body[3..]),
        b'V' => shown(body),
        _ => String::new(),
    };
    format!("{name} {detail}").trim_end().to_owned()
}

/// The columns' names in a RowDescription.
pub(crate) fn columns(body: &[u8]) -> Vec<String> {
    row_description(body)
        .split(' ')
        .filter_map(|column| Some(column.split_once(':')?.0.to_owned()))
        .collect()
}

/// `name:type:format` of each column.
fn row_description(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut columns = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(&rest[..end]);
        let fixed = &rest[end + 1..end + 19];
        let oid = u32::from_be_bytes(fixed[6..10].try_into().expect("four bytes"));
        let format = if fixed[17] == 0 { "text" } else { "binary" };
        columns.push(format!("{name}:{oid}:{format}"));
        rest = &rest[end + 19..];
    }
    columns.join(" ")
}
