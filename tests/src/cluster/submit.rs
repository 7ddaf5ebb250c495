//! Objects handed to the server as they stand, without a struct in between that would mend them, and
//! what it says of them.

use anyhow::{Context, Result, bail};
use http::{Method, Request};
use serde_json::Value;

use super::Namespace;
use crate::wait;

/// Why the server refused an object.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// What kubectl prints.
    pub message: String,
    /// Each fault's field and text.
    pub causes: Vec<Cause>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub field: String,
    pub message: String,
}

/// What the server makes of a request: the stored object, or why not.
pub type WriteResult = Result<Value, Refusal>;

/// How to write an object.
#[derive(Clone, Copy, Debug)]
pub enum Write<'m> {
    /// POST.
    Create,
    /// PUT of the whole object.
    Replace,
    /// JSON merge patch.
    Merge,
    /// Server-side apply as this field manager, without force.
    Apply(&'m str),
}

/// A request about one object of our kinds; unknown fields are faults, as for kubectl.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'m> {
    pub write: Write<'m>,
    /// Validates and fills defaults, but stores nothing.
    pub dry_run: bool,
    /// `status`, `scale`, or empty.
    pub subresource: &'m str,
}

impl Submission<'_> {
    /// Creates, really.
    pub const CREATE: Self = Self {
        write: Write::Create,
        dry_run: false,
        subresource: "",
    };
    /// Changes what is there.
    pub const MERGE: Self = Self {
        write: Write::Merge,
        ..Self::CREATE
    };
    /// Writes the status.
    pub const STATUS: Self = Self {
        subresource: "status",
        ..Self::MERGE
    };
}

impl Namespace<'_> {
    /// Hands `object` over; it names its kind and itself.
    ///
    /// # Errors
    /// When there is no answer, or the kind is none of ours. A refusal is an answer.
    pub async fn submit(&self, how: Submission<'_>, object: &Value) -> Result<WriteResult> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let (method, content, named, extra) = match how.write {
            Write::Create => (Method::POST, "application/json", false, String::new()),
            Write::Replace => (Method::PUT, "application/json", true, String::new()),
            Write::Merge => (
                Method::PATCH,
                "application/merge-patch+json",
                true,
                String::new(),
            ),
            Write::Apply(manager) => (
                Method::PATCH,
                "application/apply-patch+yaml",
                true,
                format!("&fieldManager={manager}"),
            ),
        };
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let mut path = format!("/apis/{version}/namespaces/{}/{}", self.name, plural(kind)?);
        for part in [if named { name } else { "" }, how.subresource] {
            if !part.is_empty() {
                path = format!("{path}/{part}");
            }
        }
        let dry_run = if how.dry_run { "&dryRun=All" } else { "" };
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?fieldValidation=Strict{dry_run}{extra}"))
            .header(http::header::CONTENT_TYPE, content)
            .body(serde_json::to_vec(object)?)?;
        match self.client.request::<Value>(request).await {
            Ok(stored) => Ok(Ok(stored)),
            Err(kube::Error::Api(status)) => {
                let causes = status.details.map(|details| details.causes);
                Ok(Err(Refusal {
                    code: status.code,
                    message: status.message,
                    causes: causes
                        .unwrap_or_default()
                        .into_iter()
                        .map(|cause| Cause {
                            field: cause.field,
                            message: cause.message,
                        })
                        .collect(),
                }))
            }
            Err(error) => Err(error).context("submit"),
        }
    }

    /// As [`Self::submit`] where a refusal is a failure.
    ///
    /// # Errors
    /// Also when the server refuses.
    pub async fn write(&self, how: Submission<'_>, object: &Value) -> Result<Value> {
        match self.submit(how, object).await? {
            Ok(stored) => Ok(stored),
            Err(refusal) => bail!("{}", refusal.message),
        }
    }

    /// Waits until the server refuses to create `object`: a changed definition is in force.
    ///
    /// # Errors
    /// When it goes on accepting it.
    pub async fn until_refused(&self, object: &Value) -> Result<()> {
        let how = Submission {
            dry_run: true,
            ..Submission::CREATE
        };
        wait::until("the definition is in force", wait::GENEROUS, async || {
            self.submit(how, object).await.ok()?.err().map(|_| ())
        })
        .await
    }
}

fn plural(kind: &str) -> Result<String> {
    xmpp_edge_crds::kinds::crds()
        .into_iter()
        .map(|definition| definition.spec.names)
        .find(|names| names.kind == kind)
        .map(|names| names.plural)
        .with_context(|| format!("{kind:?} is no kind of ours"))
}
