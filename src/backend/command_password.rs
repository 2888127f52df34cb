//! A password that a command prints, for credentials that expire: run again in the background before they do.

use std::fmt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::config::PasswordCommand;
use crate::telemetry::event::{PasswordCommandFailed, PasswordRenewed};
use crate::types::Secret;

/// How long a command may run.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest output, in bytes: temporary credentials have some hundred.
const MAX_OUTPUT: usize = 8 * 1024;

/// The first pause after a failure; it doubles up to the time between two runs.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Why a command gave no password. Nothing of its output is in here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It cannot be started.
    #[error("the command cannot be started: {0}")]
    Start(String),
    /// It went on for too long, and was killed.
    #[error("the command did not end within {0:?}")]
    Slow(Duration),
    /// It ended with an error.
    #[error("the command failed: {0}")]
    Failed(String),
    /// It printed something else than one line.
    #[error("the command printed {0}")]
    Output(&'static str),
}

/// What is known now.
#[derive(Clone)]
enum Latest {
    /// The first run has not ended.
    Awaited,
    /// The newest password; it stays while later runs fail.
    Password(Secret<String>),
    /// No run has succeeded yet.
    Failed(CommandError),
}

/// A password that a command prints. Dropped, the command is not run any more.
pub struct CommandPassword {
    command: PasswordCommand,
    latest: watch::Receiver<Latest>,
    task: JoinHandle<()>,
}

impl CommandPassword {
    /// Runs `command` now and then on the current tokio runtime; `whose` names the login in the log.
    pub fn spawn(command: PasswordCommand, whose: String) -> Arc<Self> {
        let (sender, latest) = watch::channel(Latest::Awaited);
        let task = tokio::spawn(keep(command.clone(), whose, sender));
        Arc::new(Self {
            command,
            latest,
            task,
        })
    }

    /// What it runs.
    pub fn command(&self) -> &PasswordCommand {
        &self.command
    }

    /// The newest password; waits for the first one.
    ///
    /// # Errors
    ///
    /// No run has succeeded yet.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn password(&self) -> Result<Secret<String>, CommandError> {
        let mut latest = self.latest.clone();
        let known = latest.wait_for(|latest| !matches!(latest, Latest::Awaited)).await;
        match known.as_deref() {
            Ok(Latest::Password(password)) => Ok(password.clone()),
            Ok(Latest::Failed(error)) => Err(error.clone()),
            // the task ended with its runtime
            Ok(Latest::Awaited) | Err(_) => Err(CommandError::Start("the gateway stops".to_owned())),
        }
    }
}

impl fmt::Debug for CommandPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandPassword").finish_non_exhaustive()
    }
}

impl Drop for CommandPassword {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(command: PasswordCommand, whose: String, latest: watch::Sender<Latest>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match run(&command, PATIENCE).await {
            Ok(password) => {
                latest.send_replace(Latest::Password(password));
                PasswordRenewed { login: &whose }.emit();
                pause = FIRST_PAUSE;
                tokio::time::sleep(command.refresh).await;
            }
            Err(error) => {
                PasswordCommandFailed {
                    login: &whose,
                    error: &error,
                    retry: pause.min(command.refresh),
                }
                .emit();
                latest.send_modify(|latest| {
                    if !matches!(latest, Latest::Password(_)) {
                        *latest = Latest::Failed(error);
                    }
                });
                tokio::time::sleep(pause.min(command.refresh)).await;
                pause = (pause * 2).min(command.refresh);
            }
        }
    }
}

/// Runs the command once.
async fn run(command: &PasswordCommand, patience: Duration) -> Result<Secret<String>, CommandError> {
    let mut words = command.words.iter();
    let program = words
        .next()
        .ok_or_else(|| CommandError::Start("it is empty".to_owned()))?;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // may have secrets in it
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| CommandError::Start(error.to_string()))?;
    let finished = tokio::time::timeout(patience, async {
        let mut output = Zeroizing::new(Vec::with_capacity(MAX_OUTPUT + 64));
        if let Some(stdout) = child.stdout.take() {
            let read = stdout.take(MAX_OUTPUT as u64 + 1).read_to_end(&mut output).await;
            read.map_err(|error| CommandError::Failed(error.to_string()))?;
        }
        if output.len() > MAX_OUTPUT {
            return Err(CommandError::Output("more than 8 KiB"));
        }
        let status = child.wait().await;
        let status = status.map_err(|error| CommandError::Failed(error.to_string()))?;
        if status.success() {
            Ok(output)
        } else {
            Err(CommandError::Failed(status.to_string()))
        }
    });
    let output = finished.await.map_err(|_| CommandError::Slow(patience))??;
    let text = std::str::from_utf8(&output).map_err(|_| CommandError::Output("no text"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err(CommandError::Output("nothing")),
        _ if line.contains(['\n', '\r', '\0']) => Err(CommandError::Output("more than one line")),
        _ => Ok(Secret::new(line.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str) -> PasswordCommand {
        PasswordCommand {
            words: ["sh", "-c", script].map(str::to_owned).to_vec(),
            refresh: Duration::from_mins(10),
        }
    }

    async fn outcome(script: &str, patience: Duration) -> Result<String, CommandError> {
        let password = run(&command(script), patience).await?;
        Ok(password.expose().clone())
    }

    #[tokio::test]
    async fn one_line_is_a_password_and_everything_else_an_error_without_it() {
        for (script, expected) in [
            ("echo geheim", Some("geheim")),
            ("printf geheim", Some("geheim")),
            ("printf 'geheim\\r\\n'", Some("geheim")),
            ("echo geheim; echo noise >&2", Some("geheim")),
            ("echo 'two words '", Some("two words ")),
            ("", None),
            ("echo", None),
            ("echo geheim; echo geheim", None),
            ("echo geheim; exit 1", None),
            ("echo geheim; kill -9 $$", None),
            ("printf '\\377'", None),
            ("head -c 9000 /dev/zero", None),
            ("exec /nonexistent/geheim-command", None),
        ] {
            let outcome = outcome(script, Duration::from_mins(1)).await;
            if let Some(password) = expected {
                assert_eq!(outcome.as_deref(), Ok(password), "{script}");
            } else {
                let error = outcome.unwrap_err().to_string();
                assert!(!error.contains("geheim"), "{script}: {error}");
            }
        }
        let missing = PasswordCommand {
            words: vec!["/nonexistent".to_owned()],
            refresh: Duration::from_mins(10),
        };
        assert!(matches!(
            run(&missing, PATIENCE).await,
            Err(CommandError::Start(_))
        ));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed() {
        let patience = Duration::from_millis(50);
        // closes its output, and keeps it open
        for script in ["exec sleep 1000", "exec sleep 1000 >&-"] {
            let slow = outcome(script, patience).await;
            assert_eq!(slow, Err(CommandError::Slow(patience)), "{script}");
        }
    }

    #[tokio::test]
    async fn a_password_is_renewed_and_stays_while_the_command_fails() {
        let directory = tempfile::tempdir().unwrap();
        let [file, runs] = ["password", "runs"].map(|name| directory.path().join(name));
        let script = format!("echo >> {}; cat {}", runs.display(), file.display());
        let often = PasswordCommand {
            refresh: Duration::from_millis(10),
            ..command(&script)
        };
        let password = CommandPassword::spawn(often, "test".to_owned());
        assert!(matches!(password.password().await, Err(CommandError::Failed(_))));
        let becomes = async |expected: &str| {
            let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
            while !matches!(password.password().await, Ok(now) if now.expose() == expected) {
                assert!(tokio::time::Instant::now() < deadline, "it never is {expected}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        std::fs::write(&file, "first\n").unwrap();
        becomes("first").await;
        std::fs::remove_file(&file).unwrap();
        let ran = || std::fs::read(&runs).unwrap().len();
        let (before, deadline) = (ran(), tokio::time::Instant::now() + Duration::from_mins(1));
        while ran() < before + 4 {
            assert!(tokio::time::Instant::now() < deadline, "it is not run any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(password.password().await.unwrap().expose(), "first");
        std::fs::write(&file, "second\n").unwrap();
        becomes("second").await;
    }
}
