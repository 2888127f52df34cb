//! The words that label metrics and log lines.

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$variant_doc])* $variant,)+ }

        impl $type {
            /// Every variant, in order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// Their words, as the reference lists them.
            pub const WORDS: &[&'static str] = &[$($word,)+];

            /// The word that logs, metrics and the console use.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// How the cache took part in a request.
    Verdict {
        /// Answered from memory.
        Hit = "hit",
        /// Answered by a run that an equal request had begun.
        Follow = "follow",
        /// Run, and the answer collected for the next.
        Miss = "miss",
        /// Run past the cache; the reason stands beside it.
        Bypass = "bypass",
    }
}

words! {
    /// What sort of statement a request ran; of several, the first that is not a read.
    RequestKind {
        /// Reads only.
        Read = "read",
        /// Changes rows.
        Write = "write",
        /// Changes definitions or privileges.
        Ddl = "ddl",
        /// Begins or ends a transaction.
        Transaction = "transaction",
        /// Reads or changes a setting.
        Setting = "setting",
        /// Uses what lives in one backend session.
        Session = "session",
        /// Copies rows in bulk.
        Copy = "copy",
        /// The rest that is understood.
        Utility = "utility",
        /// Not understood.
        Unparsed = "unparsed",
        /// A command of the console.
        Console = "console",
    }
}

words! {
    /// How a request ended.
    RequestOutcome {
        /// With every reply it asked for.
        Completed = "completed",
        /// With an error.
        Failed = "failed",
        /// Refused by a quota.
        Refused = "refused",
        /// Cancelled by the client or by a time limit.
        Cancelled = "cancelled",
        /// The client went away before the end.
        Abandoned = "abandoned",
    }
}

words! {
    /// Who made an error.
    ErrorSource {
        /// The client: what it sent is not allowed.
        Client = "client",
        /// Tollgate.
        Gateway = "gateway",
        /// The backend: relayed as it came.
        Server = "server",
    }
}

words! {
    /// How an attempt to log in ended.
    LoginOutcome {
        /// The session began.
        Accepted = "accepted",
        /// Wrong password or unknown user: one word, for one answer.
        WrongPassword = "wrong_password",
        /// User and password were right, but not for this database, or not without TLS.
        NotAllowed = "not_allowed",
        /// Too many connections.
        Limit = "limit",
        /// Too many logins failed before, from that address or of that user.
        Barred = "barred",
        /// It took too long.
        Timeout = "timeout",
        /// What was sent is not the protocol, or the client went away.
        Protocol = "protocol",
        /// The gateway or the backend could not take it.
        Unavailable = "unavailable",
    }
}
