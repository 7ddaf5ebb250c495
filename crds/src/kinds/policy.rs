//! `ExternalAccessPolicy`: which users may talk to partners at all.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    conditions::ConditionType,
    fields::{self, ConfigMapKeyRef},
};
use crate::edge_config::PolicyMode;

/// The conditions of a policy, in the order of its status.
pub const CONDITIONS: &[ConditionType] = &[
    ConditionType::Ready,
    ConditionType::Accepted,
    ConditionType::Programmed,
];

/// Specification of a policy: to whom it applies, and what it allows.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "xmpp-edge.dev",
    version = "v1alpha1",
    kind = "ExternalAccessPolicy",
    plural = "externalaccesspolicies",
    shortname = "exap",
    category = "xmpp",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    selectable = ".spec.scope",
    selectable = ".spec.site",
    doc = "An ExternalAccessPolicy says which users may communicate with partners. User beats Site beats Global; the winner counts as a whole.",
    printcolumn(name = "Scope", type_ = "string", json_path = ".spec.scope"),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.site"),
    printcolumn(name = "XMPP", type_ = "boolean", json_path = ".spec.enableXmppAccess"),
    printcolumn(name = "Users", type_ = "integer", json_path = ".status.users"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        priority = 1
    ),
    printcolumn(
        name = "Federation",
        type_ = "boolean",
        json_path = ".spec.enableFederationAccess",
        priority = 1
    ),
    printcolumn(
        name = "Public",
        type_ = "boolean",
        json_path = ".spec.enablePublicCloudAccess",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.scope != 'Site' || has(self.site)")
        .message("scope Site needs the name of the site: set spec.site")
        .field_path(".scope"),
    validation = Rule::new("self.scope == 'Site' || !has(self.site)")
        .message("spec.site is for scope Site alone: remove it, or set scope to Site")
        .field_path(".scope"),
    validation = Rule::new("self.scope == 'User' || !has(self.users) || self.users.size() == 0")
        .message("spec.users is for scope User alone: remove it, or set scope to User")
        .field_path(".scope"),
    validation = Rule::new("self.scope == 'User' || !has(self.usersFrom) || self.usersFrom.size() == 0")
        .message("spec.usersFrom is for scope User alone: remove it, or set scope to User")
        .field_path(".scope"),
)]
pub struct PolicySpec {
    /// Users to whom the policy applies. `Global`: all that no other policy covers. `Site`: those
    /// whose home site is `site`. `User`: those listed in `users` and `usersFrom`. User beats Site
    /// beats Global; the winner counts as a whole.
    pub scope: PolicyScope,
    /// Home site of the users, for scope `Site`: the site of the preferred EdgePool that serves the
    /// user's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::site")]
    pub site: Option<String>,
    /// Whether its users may communicate with federated partners at all. Defaults to false.
    #[serde(default)]
    pub enable_federation_access: bool,
    /// Whether its users may communicate with XMPP partners; needs `enableFederationAccess` too.
    /// Defaults to false.
    #[serde(default)]
    pub enable_xmpp_access: bool,
    /// Whether its users may communicate with partners of type `PublicVerified` or
    /// `PublicUnverified`; needs the other two as well. Defaults to false.
    #[serde(default)]
    pub enable_public_cloud_access: bool,
    /// Bare JIDs of the users, for scope `User`. `*@example.org` grants a whole domain; an exact JID
    /// beats it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::users")]
    pub users: Vec<String>,
    /// Lists of users kept in ConfigMaps, for scope `User`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub users_from: Vec<UsersFrom>,
    /// Names of the XmppFederatedPartners that the policy opens. Defaults to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::object_names_or_all")]
    pub partners: Option<Vec<String>>,
    /// Reaction to what the policy does not open. `Enforce`, the default, refuses it; `Audit`
    /// delivers it, and counts and logs it.
    #[serde(default)]
    pub mode: PolicyMode,
}

/// Precedence: User, then Site, then Global.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PolicyScope {
    /// Everyone that no other policy covers.
    Global,
    /// Users of a home site.
    Site,
    /// Granted users.
    User,
}

/// A list of users kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsersFrom {
    /// ConfigMap key with one JID on each line. Empty lines and lines that begin with `#` are
    /// skipped.
    pub config_map_ref: ConfigMapKeyRef,
}

/// What is known of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyStatus {
    /// Generation of the spec that this status was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of users and domains that are granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<u32>,
    /// Names of the pools in which the policy is in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub effective_pools: Vec<String>,
    /// Conditions of the policy, one for each type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::conditions")]
    pub conditions: Vec<Condition>,
}
