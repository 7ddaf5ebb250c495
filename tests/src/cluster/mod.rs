//! A real Kubernetes API for tests: etcd and kube-apiserver as processes, and beside them, where a
//! test wants it, kube-controller-manager and kubectl.
//!
//! There is no node unless a test starts one ([`node`]): nothing runs a pod. Without a controller manager nothing acts on Deployments
//! either, no namespace ends and no garbage is collected; what a test sees is then done by the
//! operator alone.
//!
//! | want | take |
//! | --- | --- |
//! | a namespace of the server that a file's tests share | [`SharedCluster::test`] |
//! | a server of one's own, to stop and start | [`ApiServer::start`] |
//! | what somebody asked the server | [`ApiServer::audit`] |
//! | to act as somebody | [`ApiServer::user`], [`ApiServer::service_account`] |

mod account;
mod admin_tls;
mod api_server;
mod audit;
mod cert_manager;
mod clock;
mod controller_manager;
mod helm;
mod identity;
pub mod images;
pub mod inside;
mod kubectl;
mod late_answers;
pub mod node;
mod operator;
mod place;
pub mod pools;
mod process_pod;
mod shared;
mod storage;
mod submit;
mod tools;
mod volumes;

pub use account::{
    account_of_release, operator_account, operator_account_that_looks_nowhere_else, operator_user,
    user_of_release,
};
pub use admin_tls::AdminTls;
pub use api_server::ApiServer;
pub use audit::{Audit, Entry, ObjectRef, User};
pub use cert_manager::CertManager;
pub use clock::Clock;
pub use controller_manager::{ControllerManager, WITH_NODES, WITHOUT_NODES};
pub use helm::{Helm, Major};
pub use identity::{ClusterIdentity, Credential};
pub use kubectl::Kubectl;
pub use late_answers::LateAnswers;
pub use operator::{FakePod, Operator, PodObject};
pub use process_pod::ProcessPod;
pub use shared::{Namespace, SharedCluster, alone, alone_within, skip};
pub use submit::{Cause, Refusal, Submission, Write, WriteResult};
pub use tools::{Missing, Tools, actionlint};
pub use volumes::{Files, projected};
