//! What the configuration says about logging in at backends.

use std::sync::Arc;

use crate::auth::BackendSecret;
use crate::backend::catalog::CatalogPassword;
use crate::backend::{CommandPassword, Learnt, SecretSource, Secrets};
use crate::config::{self, Config, LoginPassword, Password};
use crate::types::BackendName;

/// What to log in with at `backend`. Commands that `old` runs already go on.
pub(super) fn secrets(
    config: &Config,
    backend: &BackendName,
    old: &Secrets,
    learnt: &Arc<Learnt>,
) -> Secrets {
    let of_role = |team: &config::Team| {
        let role: Arc<str> = team.login.user.as_deref()?.into();
        let source = match team.login.password.as_ref()? {
            LoginPassword::Text(text) => SecretSource::Fixed(BackendSecret::Password(text.clone())),
            LoginPassword::Command(command) => match old.sources.get(&role) {
                Some(SecretSource::Command(running)) if running.command() == command => {
                    SecretSource::Command(Arc::clone(running))
                }
                Some(_) | None => {
                    let whose = format!("{role}@{backend}");
                    SecretSource::Command(CommandPassword::spawn(command.clone(), whose))
                }
            },
        };
        Some((role, source))
    };
    let here = |team: &&config::Team| team.backend == *backend;
    let roles = config.teams.values().filter(here).filter_map(of_role);
    let users = config.users.iter().filter(|(name, user)| {
        let team = user.team.as_ref().and_then(|team| config.teams.get(team));
        team.as_ref().is_some_and(here) && logs_in_as_itself(config, name.as_str()).is_some()
    });
    Secrets {
        sources: roles
            .chain(users.map(|(name, _)| (name.as_str().into(), SecretSource::Learnt)))
            .collect(),
        learnt: Arc::clone(learnt),
    }
}

/// What `user` logs in with at the gateway, if its team's users log in at the backend as they are.
pub(super) fn logs_in_as_itself<'c>(config: &'c Config, user: &str) -> Option<&'c Password> {
    let user = config.users.get(user)?;
    let team = config.teams.get(user.team.as_ref()?)?;
    user.password.as_ref().filter(|_| team.login.as_user)
}

/// The password of the gateway's own questions.
pub(super) fn control_password(backend: &BackendName, settings: &config::Backend) -> Option<CatalogPassword> {
    let control = &settings.control;
    Some(match control.password.as_ref()? {
        LoginPassword::Text(text) => CatalogPassword::Text(text.clone()),
        LoginPassword::Command(command) => {
            let whose = format!("{}@{backend}", control.user);
            CatalogPassword::Command(CommandPassword::spawn(command.clone(), whose))
        }
    })
}
