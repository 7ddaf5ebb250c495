//! Sidecars, from the side of the operator: the document that each is given, and what a labelled pod gets.
//!
//! One template ([`parts`]) is put into manifests by [`inject`], which `render --sidecar` prints, and written
//! as CEL by [`policy`], which the API server runs for each labelled pod. Nothing here asks a cluster.

pub mod document;
pub mod inject;
pub mod parameters;
pub mod parts;
pub mod policy;
pub mod workload;

#[cfg(test)]
mod tests;
