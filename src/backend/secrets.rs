//! What the gateway logs in with at a backend, by role.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::command_password::CommandPassword;
use super::error::BackendError;
use crate::auth::BackendSecret;

/// Where a role's secret comes from.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// The configuration, or what it refers to.
    Fixed(BackendSecret),
    /// A command that prints it.
    Command(Arc<CommandPassword>),
    /// The login of the user of that name at the gateway.
    Learnt,
}

/// What users' own logins at the gateway showed, by user, in memory only. As many as the configuration has users whose
/// team logs in as they are.
#[derive(Default)]
pub struct Learnt(Mutex<HashMap<String, BackendSecret>>);

impl Learnt {
    fn all(&self) -> MutexGuard<'_, HashMap<String, BackendSecret>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A login of `user` showed `secret`.
    pub fn note(&self, user: &str, secret: BackendSecret) {
        self.all().insert(user.to_owned(), secret);
    }

    /// Forgets those whom `keep` does not name.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.all().retain(|user, _| keep(user));
    }

    fn of(&self, user: &str) -> Option<BackendSecret> {
        self.all().get(user).cloned()
    }
}

/// The secrets of one backend's roles; a role that is not here has none.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Where they come from.
    pub sources: BTreeMap<Arc<str>, SecretSource>,
    /// Those of users who log in as they are.
    pub learnt: Arc<Learnt>,
}

impl Secrets {
    /// Whether a login of `role` needs nobody's own login at the gateway first.
    pub(super) fn may_know(&self, role: &str) -> bool {
        match self.sources.get(role) {
            Some(SecretSource::Learnt) => self.learnt.of(role).is_some(),
            Some(SecretSource::Fixed(_) | SecretSource::Command(_)) | None => true,
        }
    }

    /// The secret of `role`, if it has one.
    ///
    /// # Errors
    ///
    /// The command that prints it has not succeeded yet.
    pub(super) async fn of(&self, role: &str) -> Result<Option<BackendSecret>, BackendError> {
        match self.sources.get(role) {
            None => Ok(None),
            Some(SecretSource::Fixed(secret)) => Ok(Some(secret.clone())),
            Some(SecretSource::Command(command)) => {
                let password = command.password().await.map_err(BackendError::Password)?;
                Ok(Some(BackendSecret::Password(password)))
            }
            Some(SecretSource::Learnt) => Ok(self.learnt.of(role)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Secret;

    #[tokio::test]
    async fn what_was_learnt_is_for_those_who_log_in_as_they_are() {
        let secret = |text: &str| BackendSecret::Password(Secret::new(text.to_owned()));
        let secrets = Secrets {
            sources: [
                ("growth".into(), SecretSource::Fixed(secret("of the team"))),
                ("ana".into(), SecretSource::Learnt),
                ("ben".into(), SecretSource::Learnt),
            ]
            .into(),
            learnt: Arc::default(),
        };
        for user in ["growth", "ana", "trusted"] {
            secrets.learnt.note(user, secret(user));
        }
        let of = async |role: &str| secrets.of(role).await.unwrap();
        assert!(of("growth").await == Some(secret("of the team")));
        assert!(of("ana").await == Some(secret("ana")));
        assert!(of("ben").await.is_none() && of("trusted").await.is_none());
        let may_know = |role: &str| secrets.may_know(role);
        assert!(may_know("growth") && may_know("ana") && may_know("nobody") && !may_know("ben"));
        secrets.learnt.retain(|user| user != "ana");
        assert!(of("ana").await.is_none() && !may_know("ana"));
    }
}
