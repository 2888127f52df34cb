//! A client's messages as a script writes them.

use serde_json::Value;

use crate::support::frames::Frames;

/// Adds the message of one line.
pub(super) fn add(frames: Frames, line: &str) -> Option<Frames> {
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
        "Query" => frames.frame(b'Q', &[&bytes(&argument)?, b"\0"]),
        "Raw" => frames.raw(&bytes(&argument)?),
        "Parse" => {
            let types: Option<Vec<u32>> = numbers("types")
                .into_iter()
                .map(|oid| oid.try_into().ok())
                .collect();
            frames.parse_bytes(text("statement"), &bytes(&argument["query"])?, &types?)
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

/// `"text"`, `{"hex": "00ff"}`, `{"repeat": "x", "times": 1000}`, or a list of these that belong together.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    if let Some(text) = value.as_str() {
        return Some(text.as_bytes().to_vec());
    }
    if let Some(parts) = value.as_array() {
        let parts: Option<Vec<Vec<u8>>> = parts.iter().map(bytes).collect();
        return Some(parts?.concat());
    }
    if let Some(text) = value["repeat"].as_str() {
        return Some(
            text.as_bytes()
                .repeat(usize::try_from(value["times"].as_u64()?).ok()?),
        );
    }
    let digits = value["hex"].as_str()?;
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
