//! Scripts of messages, `sql-fixtures/wire/*.pt`, and their answers as text. `sql-fixtures/README.md` describes the form.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::frames::Frames;
use crate::support::wire::{Message, Reply, Wire};

/// A script.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// The comment at its beginning, as written.
    pub(crate) head: String,
    /// What is run beforehand, once.
    pub(crate) setup: String,
    pub(crate) steps: Vec<Step>,
}

/// What is sent together, and what is awaited.
#[derive(Debug)]
pub(crate) struct Step {
    /// The first line, as written.
    line: String,
    /// The messages, as written.
    text: String,
    until: Until,
    bytes: Vec<u8>,
    pub(crate) expected: String,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    Tag(u8),
    Nothing,
    End,
}

const REPLIES: [(u8, &str); 24] = [
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

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    ///
    /// Says which line is wrong.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next_if(|line| line.starts_with('#')) {
            script.head.push_str(line);
            script.head.push('\n');
        }
        while let Some(line) = lines.next() {
            if line.is_empty() {
                continue;
            }
            let mut block = String::new();
            for line in lines.by_ref() {
                if line == "----" {
                    break;
                }
                block.push_str(line);
                block.push('\n');
            }
            let mut expected = String::new();
            while let Some(line) = lines.next_if(|line| !line.is_empty()) {
                expected.push_str(line);
                expected.push('\n');
            }
            if line == "setup" {
                script.setup.push_str(&block);
            } else {
                script.steps.push(Step::read(line, block, expected)?);
            }
        }
        Ok(script)
    }

    /// The value of the line `# name: value` at the beginning.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Sends everything in pieces of at most `piece` bytes; the answers go to `replies`.
    pub(crate) fn play(&self, wire: &mut Wire, piece: usize, replies: &mut Vec<Reply>) {
        for step in &self.steps {
            for bytes in step.bytes.chunks(piece) {
                wire.send(bytes);
            }
            replies.push(match step.until {
                Until::Tag(tag) => wire.until(tag),
                Until::Nothing => Reply(Vec::new()),
                Until::End => wire.until(0),
            });
        }
    }

    /// The script with `replies` as what is expected.
    pub(crate) fn rewritten(&self, replies: &[Reply]) -> String {
        let mut text = self.head.clone();
        if !self.setup.is_empty() {
            write!(text, "\nsetup\n{}----\n", self.setup).expect("a text");
        }
        for (step, reply) in self.steps.iter().zip(replies) {
            write!(text, "\n{}\n{}----\n{}", step.line, step.text, rendered(reply)).expect("a text");
        }
        text
    }
}

impl Step {
    fn read(line: &str, text: String, expected: String) -> Result<Self, String> {
        let until = match line {
            "send" => Until::Tag(b'Z'),
            "send and go on" => Until::Nothing,
            "send until the end" => Until::End,
            _ => {
                let name = line
                    .strip_prefix("send until ")
                    .ok_or_else(|| format!("not a step: {line}"))?;
                let (tag, _) = REPLIES
                    .iter()
                    .find(|(_, known)| *known == name)
                    .ok_or_else(|| format!("not a message of the server: {name}"))?;
                Until::Tag(*tag)
            }
        };
        let mut frames = Frames::new();
        for line in text.lines() {
            frames = message(frames, line).ok_or_else(|| format!("not a message of a client: {line}"))?;
        }
        Ok(Self {
            line: line.to_owned(),
            until,
            bytes: frames.to_vec(),
            text,
            expected,
        })
    }
}

/// Adds the message of one line.
fn message(frames: Frames, line: &str) -> Option<Frames> {
    let (name, argument) = line.split_once(' ').unwrap_or((line, "null"));
    let argument: Value = serde_json::from_str(argument).ok()?;
    let text = |key: &str| argument[key].as_str().unwrap_or_default();
    let numbers = |key: &str| -> Vec<i64> {
        let list = argument[key].as_array();
        list.into_iter().flatten().filter_map(Value::as_i64).collect()
    };
    let codes = |key: &str| -> Option<Vec<i16>> {
        numbers(key)
            .into_iter()
            .map(|code| code.try_into().ok())
            .collect()
    };
    Some(match name {
        "Query" => frames.query(argument.as_str()?),
        "Parse" => {
            let types: Option<Vec<u32>> = numbers("types")
                .into_iter()
                .map(|oid| oid.try_into().ok())
                .collect();
            frames.parse(text("statement"), text("query"), &types?)
        }
        "Bind" => {
            let values = argument["values"].as_array();
            let values: Option<Vec<Option<Vec<u8>>>> = values
                .into_iter()
                .flatten()
                .map(|value| {
                    if value.is_null() {
                        Some(None)
                    } else {
                        bytes(value).map(Some)
                    }
                })
                .collect();
            let values = values?;
            let values: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
            frames.bind(
                text("portal"),
                text("statement"),
                &codes("formats")?,
                &values,
                &codes("results")?,
            )
        }
        "Describe" => match argument.get("statement") {
            Some(name) => frames.describe_statement(name.as_str()?),
            None => frames.describe_portal(text("portal")),
        },
        "Close" => match argument.get("statement") {
            Some(name) => frames.close_statement(name.as_str()?),
            None => frames.close_portal(text("portal")),
        },
        "Execute" => {
            let max = argument["max_rows"].as_i64().unwrap_or(0);
            frames.execute(text("portal"), max.try_into().ok()?)
        }
        "Sync" => frames.sync(),
        "Flush" => frames.flush(),
        "CopyData" => frames.copy_data(&bytes(&argument)?),
        "CopyDone" => frames.copy_done(),
        "CopyFail" => frames.copy_fail(argument.as_str()?),
        "Terminate" => frames.terminate(),
        "FunctionCall" => {
            let values = argument["values"].as_array()?;
            let mut body = Vec::new();
            body.extend(u32::try_from(argument["oid"].as_u64()?).ok()?.to_be_bytes());
            body.extend([0, 1, 0, 1]);
            body.extend(u16::try_from(values.len()).ok()?.to_be_bytes());
            for value in values {
                let value = bytes(value)?;
                body.extend(u32::try_from(value.len()).ok()?.to_be_bytes());
                body.extend(value);
            }
            body.extend([0, 1]);
            frames.frame(b'F', &[&body])
        }
        _ => return None,
    })
}

/// `"text"` or `{"hex": "00ff"}`.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    if let Some(text) = value.as_str() {
        return Some(text.as_bytes().to_vec());
    }
    let digits = value["hex"].as_str()?;
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// Bytes as a script writes them.
fn shown(bytes: &[u8]) -> String {
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
