//! Why an object of a pool could not be written: what somebody has to mend, and what is tried again.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::ChildKind;
use crate::runtime::store::UnreadError;

/// A call that takes longer failed.
const LONGEST: Duration = Duration::from_secs(30);

/// Why an object could not be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// Infrastructure: it is tried again soon.
    #[error("{what}: {}", words(source))]
    Api {
        what: String,
        source: Arc<kube::Error>,
    },
    #[error("{what}: the API server did not answer within {} s", LONGEST.as_secs())]
    Late { what: String },
    /// Of all objects of a pool together.
    #[error(
        "its objects could not all be written within {seconds} s: the API server answers slowly"
    )]
    TooLong { seconds: u64 },
    /// Somebody else was first, or what was read is out of date: the watch brings the newer form.
    #[error("{what} was changed meanwhile")]
    Overtaken { what: String },
    /// The spec leads to what the API server does not take.
    #[error("{what}: the API server refuses it: {message}")]
    Refused { what: String, message: String },
    #[error(
        "{what} is there already and was not made for this pool: delete it, or give it or the pool another name"
    )]
    Foreign { what: String },
    #[error(
        "{what} is rewritten by another operator that watches this namespace too, and is left alone for a minute: give each namespace one operator (`--watch-namespace`, `--cluster-wide`; in the chart watchNamespaces, clusterWide)"
    )]
    Contended { what: String },
    #[error(
        "{what}: somebody else sets {field} again and again, and it is left alone for a minute: {remedy}"
    )]
    Disputed {
        what: String,
        field: String,
        remedy: &'static str,
    },
    #[error("the API server does not know the kind {kind}: install what provides it")]
    KindMissing { kind: &'static str },
    #[error("{what} has no JSON form: {source}")]
    Json {
        what: String,
        source: Arc<serde_json::Error>,
    },
    /// What is to be written over, or what it is made from, is there and could not be read.
    #[error(transparent)]
    Unread(#[from] UnreadError),
    /// It failed so lately, and was not tried again.
    #[error(transparent)]
    StillFailing(Box<ApplyError>),
}

/// The API server's own words, where it answered: the rest of an answer is of use to nobody.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

impl ApplyError {
    fn of(what: String, kind: Option<ChildKind>, error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => match status.code {
                404 if kind == Some(ChildKind::Certificate) => Self::KindMissing {
                    kind: "Certificate of cert-manager.io/v1",
                },
                409 => Self::Overtaken { what },
                400 | 403 | 405 | 413 | 422 => Self::Refused {
                    what,
                    message: status.message.clone(),
                },
                _ => Self::Api {
                    what,
                    source: Arc::new(error),
                },
            },
            _ => Self::Api {
                what,
                source: Arc::new(error),
            },
        }
    }

    pub(in crate::controllers::pool) fn too_long(longest: Duration) -> Self {
        let seconds = longest.as_secs();
        Self::TooLong { seconds }
    }

    /// Label `reason` of the metric of errors.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } => "ApiError",
            Self::Late { .. } | Self::TooLong { .. } => "Timeout",
            Self::Overtaken { .. } => "Overtaken",
            Self::Refused { .. } => "Refused",
            Self::Foreign { .. } => "Foreign",
            Self::Contended { .. } | Self::Disputed { .. } => "Contended",
            Self::KindMissing { .. } => "KindMissing",
            Self::Json { .. } => "Json",
            Self::Unread(_) => "Unread",
            Self::StillFailing(cause) => cause.reason(),
        }
    }

    /// What failed, when it was tried.
    #[must_use]
    pub fn cause(&self) -> &Self {
        match self {
            Self::StillFailing(cause) => cause.cause(),
            tried => tried,
        }
    }

    /// Whether it is an earlier failure that still stands: it was counted and logged then.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        matches!(self, Self::StillFailing(_))
    }

    /// Whether the same write would most likely fail again at once.
    pub(super) fn lasts(&self) -> bool {
        match self.cause() {
            // The newer form decides anew; contention has pauses of its own.
            Self::Overtaken { .. } | Self::Contended { .. } | Self::Disputed { .. } => false,
            // Where the API server is not reached it is not about this object: what is told of it once it
            // is there again is acted on at once.
            Self::Api { source, .. } => {
                matches!(&**source, kube::Error::Api(status) if status.code != 404)
            }
            _ => true,
        }
    }

    /// Whether there is no such object (any more).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.cause(), Self::Api { source, .. }
            if matches!(&**source, kube::Error::Api(status) if status.code == 404))
    }

    /// Whether the pool's status tells it: somebody has to do something.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.cause(),
            Self::Refused { .. }
                | Self::Foreign { .. }
                | Self::Contended { .. }
                | Self::Disputed { .. }
                | Self::KindMissing { .. }
        )
    }
}

/// Awaits a call, which fails as [`ApplyError`].
pub(super) async fn call<T>(
    what: impl Fn() -> String,
    kind: Option<ChildKind>,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApplyError> {
    match timeout(LONGEST, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ApplyError::of(what(), kind, error)),
        Err(_) => Err(ApplyError::Late { what: what() }),
    }
}
