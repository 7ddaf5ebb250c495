//! Families of which each series belongs to a partner: those of a partner that is removed go with it.

use std::{collections::HashMap, fmt, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{
        MetricType, TypedMetric,
        family::{Family, MetricConstructor},
    },
};

/// Labels with a partner among them.
pub(super) trait PartnerSeries: Clone + Eq + Hash {
    /// Name of the object, or `other`.
    fn partner(&self) -> &str;
}

/// A family that knows which series each partner has.
pub(super) struct PartnerFamily<S, M, C = fn() -> M> {
    family: Family<S, M, C>,
    of_partner: Arc<Mutex<OfPartner<S, M>>>,
}

/// Series by the name of their partner.
type OfPartner<S, M> = HashMap<String, HashMap<S, M>>;

impl<S: PartnerSeries, M: Clone, C: MetricConstructor<M>> PartnerFamily<S, M, C> {
    /// The series with these labels, made where there is none.
    pub(super) fn get(&self, labels: &S) -> M {
        let is_new = self.family.get(labels).is_none();
        let metric = self.family.get_or_create_owned(labels);
        if is_new {
            let mut of_partner = self.of_partner.lock();
            let own = of_partner.entry(labels.partner().to_owned()).or_default();
            own.insert(labels.clone(), metric.clone());
        }
        metric
    }

    /// Shows every series. Who makes a new one meanwhile waits: nothing slow is to be done with them.
    pub(super) fn each(&self, mut show: impl FnMut(&S, &M)) {
        for series in self.of_partner.lock().values() {
            for (labels, metric) in series {
                show(labels, metric);
            }
        }
    }
}

/// What is done when a partner is removed, whatever its series are.
pub(super) trait ForgetPartner {
    fn forget(&self, partner: &str);
}

impl<S: PartnerSeries, M, C: MetricConstructor<M>> ForgetPartner for PartnerFamily<S, M, C> {
    fn forget(&self, partner: &str) {
        let labels = self.of_partner.lock().remove(partner);
        for labels in labels.into_iter().flat_map(HashMap::into_keys) {
            self.family.remove(&labels);
        }
    }
}

impl<S: Clone + Eq + Hash, M, C> PartnerFamily<S, M, C> {
    pub(super) fn new_with_constructor(constructor: C) -> Self {
        Self {
            family: Family::new_with_constructor(constructor),
            of_partner: Arc::default(),
        }
    }
}

impl<S: Clone + Eq + Hash, M: Default> Default for PartnerFamily<S, M> {
    fn default() -> Self {
        Self::new_with_constructor(M::default)
    }
}

impl<S, M, C: Clone> Clone for PartnerFamily<S, M, C> {
    fn clone(&self) -> Self {
        Self {
            family: self.family.clone(),
            of_partner: Arc::clone(&self.of_partner),
        }
    }
}

impl<S, M, C> fmt::Debug for PartnerFamily<S, M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartnerFamily").finish_non_exhaustive()
    }
}

impl<S, M, C> EncodeMetric for PartnerFamily<S, M, C>
where
    S: Clone + Eq + Hash + EncodeLabelSet,
    M: EncodeMetric + TypedMetric,
    C: MetricConstructor<M>,
{
    fn encode(&self, encoder: MetricEncoder) -> fmt::Result {
        self.family.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.family.metric_type()
    }

    fn is_empty(&self) -> bool {
        self.family.is_empty()
    }
}
