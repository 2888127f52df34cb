//! Log lines to standard error, as text or JSON, with a filter that can be changed while the gateway runs.

use std::fmt;
use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(
        "\"{filter}\" is not a log filter; write a level, e.g., \"info\", or levels by part, e.g., \"info,tollgate::request=debug\""
    )]
    Filter {
        /// As written.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody set up logging before, or it is gone.
    #[error("logging is set up once and lives as long as the process")]
    Installed,
}

/// Changes the filter later.
#[derive(Clone)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogControl")
    }
}

impl LogControl {
    /// Takes another filter, in the form that [`init`] takes.
    ///
    /// # Errors
    ///
    /// When it cannot be read; the one before stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        self.0.reload(parse(filter)?).map_err(|_| LogError::Installed)
    }
}

/// Sends log lines to standard error from now on; once per process, at the start.
///
/// `filter` is a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or a list of levels by part such as
/// `info,tollgate::request=debug`.
///
/// # Errors
///
/// When the filter cannot be read, or logging is set up already.
pub fn init(format: LogFormat, filter: &str) -> Result<LogControl, LogError> {
    let colours = std::io::stderr().is_terminal();
    let (subscriber, control) = subscriber(format, filter, colours, std::io::stderr)?;
    subscriber.try_init().map_err(|_| LogError::Installed)?;
    Ok(control)
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    colours: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, LogControl), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colours);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok((
        tracing_subscriber::registry().with(filter).with(lines),
        LogControl(handle),
    ))
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogError::Filter {
            filter: filter.to_owned(),
            source,
        })
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Lines that were written.
    #[derive(Clone, Debug, Default)]
    pub(in crate::telemetry) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub(in crate::telemetry) fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Runs `work` with a log of its own and gives what it wrote.
    pub(in crate::telemetry) fn logged(
        format: LogFormat,
        filter: &str,
        work: impl FnOnce(&LogControl),
    ) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, control) = subscriber(format, filter, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || work(&control));
        lines.take()
    }

    #[test]
    fn lines_pass_the_filter_that_is_in_force() {
        let text = logged(LogFormat::Text, "info", |control| {
            tracing::debug!("one");
            tracing::info!("two");
            control.set_filter("tollgate=debug").unwrap();
            tracing::debug!("three");
            control.set_filter("nonsense=loud").unwrap_err();
            tracing::debug!("four");
        });
        let last: Vec<_> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(last, ["two", "three", "four"], "{text}");
    }

    #[test]
    fn json_lines_hold_fields_beside_the_message() {
        let line = logged(LogFormat::Json, "info", |_| {
            tracing::info!(rows = 3, "two\nlines");
        });
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["rows"], &value["message"]),
            (&3.into(), &"two\nlines".into()),
            "{line}"
        );
    }

    #[test]
    fn a_wrong_filter_says_how_to_write_it() {
        let error = logged_error("nonsense=loud");
        assert!(
            error.starts_with("\"nonsense=loud\" is not a log filter; write a level"),
            "{error}"
        );
    }

    fn logged_error(filter: &str) -> String {
        parse(filter).unwrap_err().to_string()
    }
}
