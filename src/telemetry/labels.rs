//! The values of every label. Each set is an enum, so it is closed: a series is never made of
//! what a request said.

/// Declares an enum whose variants are the values of one label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }
    };
}

label! {
    /// Which path was asked for.
    Path {
        /// `POST /validate`
        Validate = "validate",
        /// `POST /mutate`
        Mutate = "mutate",
        /// Anything else.
        Other = "other",
    }
}

impl Path {
    /// The label of a request's path.
    pub fn of(path: &str) -> Path {
        match path {
            "/validate" => Path::Validate,
            "/mutate" => Path::Mutate,
            _ => Path::Other,
        }
    }
}

label! {
    /// What is asked for alerts and metrics that guard a rollout.
    Source {
        Prometheus = "prometheus",
        Alertmanager = "alertmanager",
    }
}

label! {
    /// What came of a query for alerts or metrics.
    Asked {
        /// An answer.
        Ok = "ok",
        /// An answer without a series in it: good news of alerts, none of metrics.
        Empty = "empty",
        /// The answer says of itself that it is not whole.
        Partial = "partial",
        Timeout = "timeout",
        /// Out of reach, refused, or not to be read.
        Error = "error",
    }
}

label! {
    /// How a request ended. The first five are verdicts, which only the reviewer knows; the
    /// server counts the rest. Every request is counted exactly once.
    Outcome {
        /// Allowed without a word.
        Allowed = "allowed",
        /// Allowed with at least one warning.
        Warned = "warned",
        /// Allowed and patched.
        Patched = "patched",
        /// Denied by a rule.
        Denied = "denied",
        /// The uid could be read and the object could not: denied with 422.
        Unreadable = "unreadable",
        /// 400: no AdmissionReview could be read.
        BadRequest = "bad_request",
        /// 404: unknown path.
        NotFound = "not_found",
        /// 405: not a POST.
        WrongMethod = "wrong_method",
        /// 408: the body did not arrive in time.
        SlowBody = "slow_body",
        /// 413: the body is longer than the limit.
        TooLarge = "too_large",
        /// 415: the body is not declared as JSON.
        WrongType = "wrong_type",
        /// 429: no free worker, no memory for the body, or too many connections.
        Overloaded = "overloaded",
        /// 503: the snapshot is not complete.
        Unavailable = "unavailable",
        /// 500: the reviewer panicked.
        Panicked = "panicked",
        /// Any other status of the reviewer.
        Failed = "failed",
        /// The client went away before it could be answered.
        ClientGone = "client_gone",
    }
}

label! {
    /// Which listener a connection came to.
    Port {
        /// The HTTPS port that the API server calls.
        Admission = "admission",
        /// The plain port of probes and metrics.
        Probes = "probes",
    }
}

label! {
    /// Why a connection ended.
    Closed {
        /// The client closed it.
        ByClient = "by_client",
        /// The answer carried `Connection: close`.
        AfterAnswer = "after_answer",
        /// Nothing arrived for longer than the idle timeout.
        Idle = "idle",
        /// It was idle and the place was needed for a new one.
        Evicted = "evicted",
        /// It was idle while the server drained.
        Drained = "drained",
        /// It was still open at the end of the drain and was cut.
        Cut = "cut",
        /// The TLS handshake failed.
        HandshakeFailed = "handshake_failed",
        /// The TLS handshake took too long.
        HandshakeTimeout = "handshake_timeout",
        /// The head of a request took too long.
        SlowHead = "slow_head",
        /// The client did not take its answer in time.
        SlowRead = "slow_read",
        /// What arrived was not HTTP/1.1.
        ProtocolError = "protocol_error",
        /// The transport failed.
        IoError = "io_error",
        /// Over the limit with nothing idle: closed without a byte.
        Refused = "refused",
    }
}

label! {
    /// What was full when a request was answered 429.
    Full {
        /// No worker became free within the queue's time.
        Workers = "workers",
        /// The bodies being read already fill their budget.
        BodyMemory = "body_memory",
        /// The connection came over the limit.
        Connections = "connections",
    }
}

label! {
    /// What became of a finding, after policy and mode.
    Action {
        /// The request was denied.
        Deny = "deny",
        /// The user saw a warning.
        Warn = "warn",
        /// Only the audit annotation says it.
        Audit = "audit",
    }
}

label! {
    /// Which loop of the controller.
    Loop {
        /// Scans what exists.
        Audit = "audit",
        /// Mends what policy allows.
        Repair = "repair",
        /// Writes policy reports.
        Reports = "reports",
        /// Writes Events.
        Events = "events",
        /// Writes the MeshState.
        MeshState = "mesh_state",
        /// Keeps the parameters of the admission policy.
        Guard = "guard",
        /// Collects the week's tally.
        Tally = "tally",
        /// Keeps certificates and CA bundles.
        Certificates = "certificates",
        /// Carries out gateway rollouts.
        Rollout = "rollout",
    }
}

label! {
    /// What became of a repair.
    RepairResult {
        /// Made.
        Done = "done",
        /// The object had changed, or somebody else leads: looked at again.
        Moved = "moved",
        /// Refused by the API server, by policy, or because it cannot be taken back.
        Refused = "refused",
        /// Taken back, because somebody asked for it.
        Undone = "undone",
    }
}
