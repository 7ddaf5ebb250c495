//! What the operator says of our objects: their conditions, as they stand and as they come.

use anyhow::{Context, Result};
use http::Request;
use serde_json::Value;

use super::{Namespace, submit};
use crate::wait;

/// A condition without its times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl Namespace<'_> {
    /// An object of our kinds as the server has it; `None` where there is none.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn read(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let path = format!(
            "/apis/xmpp-edge.dev/v1alpha1/namespaces/{}/{}/{name}",
            self.name,
            submit::plural(kind)?
        );
        let request = Request::get(path).body(Vec::new())?;
        match self.client.request::<Value>(request).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).context("read"),
        }
    }

    /// A condition of an object, empty where it is not there.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn condition(&self, kind: &str, name: &str, condition: &str) -> Result<Condition> {
        let object = self.read(kind, name).await?.unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array();
        let found = conditions.into_iter().flatten();
        let found = found.into_iter().find(|found| found["type"] == condition);
        let text = |field: &str| {
            let text = found.and_then(|found| found[field].as_str());
            text.unwrap_or_default().to_owned()
        };
        Ok(Condition {
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
        })
    }

    /// Waits until a condition has this reason; gives it whole.
    ///
    /// # Errors
    /// When it does not come to that; says what it was last.
    pub async fn until_reason(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        reason: &str,
    ) -> Result<Condition> {
        let what = format!("{kind} {name} is {condition} for {reason}");
        let found = wait::until(&what, wait::GENEROUS, async || {
            let found = self.condition(kind, name, condition).await.ok()?;
            (found.reason == reason).then_some(found)
        })
        .await;
        match found {
            Ok(found) => Ok(found),
            Err(error) => {
                let last = self.condition(kind, name, condition).await?;
                Err(error.context(format!("it was {last:?}")))
            }
        }
    }
}
