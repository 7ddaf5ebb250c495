//! What the proxy is given beside its document: certificates and secrets, from the manifests'
//! Secrets and from the state directory. What cannot be had stays as it was given last, over a restart too.

use jiff::Timestamp;
use xmpp_edge_crds::{
    edge_config::{Contacts, EdgeConfig, HostPort},
    egress::EgressCredentials,
    kinds::{
        EdgePool,
        conditions::{ConditionType, Reason},
    },
};
use xmpp_edge_proxy::config::{ConfigSecrets, PemPair};
use zeroize::Zeroizing;

use crate::{
    compile::{Diagnostic, Kind, NamespaceInputs, ObjectRef, Severity},
    secrets::{
        CertificateError, chain,
        database::DatabaseSecret,
        egress,
        internal_ca::{self, DialbackSecret},
        source::{self, CertificateSpec, CertificateState, Environment, PoolBackend, sip},
        store::{ManagedSecret, SecretData, Store, set, text},
    },
};

/// Everything for one pool, and what there is to say of it.
#[derive(Debug)]
pub struct Provided {
    pub materials: ConfigSecrets,
    pub certificate: CertificateState,
    pub diagnostics: Vec<Diagnostic>,
}

/// Provides for the pool of `config`.
///
/// # Errors
/// [`CertificateError`] where the store fails, or where a secret cannot be had that was never given.
pub fn provide(
    world: &NamespaceInputs,
    config: &EdgeConfig,
    store: &mut dyn Store,
    now: Timestamp,
) -> Result<Provided, CertificateError> {
    let mut diagnostics = Vec::new();
    let spec = world
        .pools
        .iter()
        .find(|pool| pool.metadata.name.as_ref() == Some(&config.pool));
    let ca = internal_ca::ensure_ca(store, &config.namespace, now)?;
    let issuer =
        internal_ca::ensure_issuer(store, &ca, &config.pool, &config.namespace_domains, now)?;
    for gateway in &config.gateways {
        internal_ca::ensure_gateway(store, &ca, &gateway.domains, now)?;
    }
    let mut certificate = certificate(world, spec, config, store, now)?;
    let secrets = |name: &str| world.secrets.get(name).cloned();
    let sip = sip::provide(spec, config, &secrets, store, now)?;
    certificate.sip = sip.faults;
    diagnostics.push(certificate_ready(&config.pool, &certificate, now));
    let entry = ManagedSecret::LastGiven(config.pool.clone());
    let held = store.read(&entry)?.unwrap_or_default();
    let mut given_now = SecretData::new();
    let mut memory = GivenSecrets {
        world,
        config,
        before: &held,
        now: &mut given_now,
        diagnostics: &mut diagnostics,
    };
    let dialback = memory.dialback(spec, store)?;
    let (contacts_url, contacts_ca) = memory.contacts(spec);
    let egress_credentials = memory.egress_credentials(spec);
    if given_now != held
        && let Err(error) = store.write(&entry, &given_now)
    {
        // The next start alone would miss it.
        diagnostics.push(not_given(config, error.to_string()));
    }
    let materials = ConfigSecrets {
        certificate: certificate.pair.as_ref().map(given),
        internal_ca: ca.trusted,
        issuer: Some(given(&issuer)),
        dialback_secret: dialback.secret,
        dialback_previous: dialback.previous,
        admin_token: None,
        contacts_url,
        contacts_ca,
        egress_credentials,
        sip_pairs: sip.pairs,
    };
    Ok(Provided {
        materials,
        certificate,
        diagnostics,
    })
}

fn given(pair: &chain::PemPair) -> PemPair {
    PemPair {
        chain: pair.chain.clone(),
        key: pair.key.clone(),
    }
}

/// Condition `CertificateReady` of a pool.
#[must_use]
pub fn certificate_ready(pool: &str, certificate: &CertificateState, now: Timestamp) -> Diagnostic {
    let (status, reason, message) = certificate.condition(now);
    Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, pool),
        condition: ConditionType::CertificateReady,
        status,
        reason,
        message,
        severity: if status {
            Severity::Info
        } else {
            Severity::Warning
        },
    }
}

/// The pool's certificate: for every own domain of the pool, and the FQDN.
///
/// # Errors
/// [`CertificateError`].
pub fn certificate(
    world: &NamespaceInputs,
    spec: Option<&EdgePool>,
    config: &EdgeConfig,
    store: &mut dyn Store,
    now: Timestamp,
) -> Result<CertificateState, CertificateError> {
    let names = config.certificate_names();
    let secrets = |name: &str| world.secrets.get(name).cloned();
    let mode = spec.map(|pool| &pool.spec.certificate);
    let backend = PoolBackend::of(mode, &secrets, Environment::Standalone);
    source::provide(
        &backend,
        &CertificateSpec {
            pool: &config.pool,
            names: &names,
            now,
        },
        store,
    )
}

fn not_given(config: &EdgeConfig, message: String) -> Diagnostic {
    Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, &config.pool),
        condition: ConditionType::Ready,
        status: false,
        reason: Reason::ReferenceMissing,
        message,
        severity: Severity::Warning,
    }
}

/// What the manifests' Secrets give beside certificates, and what they gave before: a Secret that is gone, or broken, costs
/// nothing that worked.
struct GivenSecrets<'a> {
    world: &'a NamespaceInputs,
    config: &'a EdgeConfig,
    before: &'a SecretData,
    /// To be kept for the next time.
    now: &'a mut SecretData,
    diagnostics: &'a mut Vec<Diagnostic>,
}

/// A connection string, and perhaps the authority of the server's certificate.
type ContactsDatabase = (Option<Zeroizing<String>>, Option<String>);

const DIALBACK: [&str; 2] = ["dialback-secret", "dialback-previous"];
const CONTACTS: [&str; 2] = ["contacts-url", "contacts-ca.crt"];
const EGRESS: [&str; 2] = ["egress-username", "egress-password"];
/// Address of the egress proxy that those are for.
const EGRESS_PROXY: &str = "egress-proxy";

impl GivenSecrets<'_> {
    fn note(&mut self, key: &str, value: Option<Zeroizing<Vec<u8>>>) {
        if let Some(value) = value {
            self.now.insert(key.to_owned(), value);
        }
    }

    /// What was given before under these keys is kept; whether there was anything.
    fn keep(&mut self, keys: &[&str]) -> bool {
        for key in keys {
            if let Some(value) = self.before.get(*key) {
                self.now.insert((*key).to_owned(), value.clone());
            }
        }
        keys.first()
            .is_some_and(|key| self.before.contains_key(*key))
    }

    /// Goes on with what was given before under these keys, where there was anything, and says so.
    fn goes_on(&mut self, keys: &[&str], fault: &dyn std::fmt::Display) {
        let stays = if self.keep(keys) {
            "; what was given last stays in use"
        } else {
            ""
        };
        let message = format!("{fault}{stays}");
        self.diagnostics.push(not_given(self.config, message));
    }

    fn dialback_before(&self) -> Option<DialbackSecret> {
        let [secret, previous] = DIALBACK.map(|key| self.before.get(key).cloned());
        Some(DialbackSecret {
            secret: secret?,
            previous,
        })
    }

    fn dialback(
        &mut self,
        spec: Option<&EdgePool>,
        store: &mut dyn Store,
    ) -> Result<DialbackSecret, CertificateError> {
        let Some(spec) = spec else {
            // What is in force goes on with what it had.
            self.keep(&DIALBACK);
            let before = self.dialback_before();
            return before.map_or_else(|| internal_ca::ensure_dialback(store), Ok);
        };
        let Some(reference) = &spec.spec.settings.dialback_secret_ref else {
            return internal_ca::ensure_dialback(store);
        };
        let missing = SecretData::new();
        let world = self.world;
        let material = world.secrets.get(&reference.name).unwrap_or(&missing);
        match internal_ca::dialback_of(material, &reference.name) {
            Ok(given) => {
                let kept = [Some(given.secret.clone()), given.previous.clone()];
                for (key, value) in DIALBACK.into_iter().zip(kept) {
                    self.note(key, value);
                }
                Ok(given)
            }
            Err(error) => match self.dialback_before() {
                None => Err(error),
                Some(before) => {
                    self.goes_on(&DIALBACK, &error);
                    Ok(before)
                }
            },
        }
    }

    fn contacts_before(&self) -> ContactsDatabase {
        let [url, ca] = CONTACTS.map(|key| text(self.before, key).map(str::to_owned));
        (url.map(Zeroizing::new), ca)
    }

    fn contacts(&mut self, spec: Option<&EdgePool>) -> ContactsDatabase {
        if self.config.contacts == Contacts::Embedded {
            return (None, None);
        }
        let Some(spec) = spec else {
            self.keep(&CONTACTS);
            return self.contacts_before();
        };
        let postgres = spec.spec.contacts.as_ref();
        let postgres = postgres.and_then(|contacts| contacts.postgres.as_ref());
        let name = postgres.map_or("", |postgres| &postgres.secret_ref.name);
        match DatabaseSecret::read(name, self.world.secrets.get(name)) {
            Ok(database) => {
                set(self.now, CONTACTS[0], &database.url);
                if let Some(ca) = &database.ca {
                    set(self.now, CONTACTS[1], ca);
                }
                (Some(database.url), database.ca)
            }
            Err(error) => {
                self.goes_on(&CONTACTS, &error);
                self.contacts_before()
            }
        }
    }

    /// What was given for the proxy at this address.
    fn egress_before(&self, address: &str) -> Option<EgressCredentials> {
        text(self.before, EGRESS_PROXY).filter(|before| *before == address)?;
        let [username, password] = EGRESS.map(|key| self.before.get(key));
        let [username, password] = [username, password].map(|it| it.map(|value| value.as_slice()));
        EgressCredentials::parse(username, password).ok()
    }

    /// For the proxy that is in force, whatever the spec says: credentials of one proxy go to no other.
    fn egress_credentials(&mut self, spec: Option<&EdgePool>) -> Option<EgressCredentials> {
        let config = self.config;
        let proxy = config.settings.egress_proxy.as_ref();
        let proxy = proxy.filter(|proxy| proxy.has_credentials)?;
        let address = proxy.address.to_string();
        let before = self.egress_before(&address);
        let of_proxy = [EGRESS[0], EGRESS[1], EGRESS_PROXY];
        let kept: &[&str] = match before {
            Some(_) => &of_proxy,
            None => &[],
        };
        let is_in_force = |pool: &&EdgePool| {
            let given = pool.spec.settings.egress_proxy.as_ref();
            let given = given.and_then(|given| HostPort::parse(&given.address, None).ok());
            given.as_ref() == Some(&proxy.address)
        };
        let Some(reference) = spec.filter(is_in_force).and_then(egress::secret_of) else {
            self.keep(kept);
            return before;
        };
        let secret = self.world.secrets.get(reference);
        match egress::credentials(reference, secret) {
            Ok(credentials) => {
                for (key, from) in EGRESS.into_iter().zip(egress::KEYS) {
                    self.note(key, secret.and_then(|secret| secret.get(from)).cloned());
                }
                set(self.now, EGRESS_PROXY, &address);
                Some(credentials)
            }
            Err(error) => {
                self.goes_on(kept, &error);
                before
            }
        }
    }
}

/// Whether the proxy would be given the same.
#[must_use]
pub fn same(one: &ConfigSecrets, other: &ConfigSecrets) -> bool {
    one.certificate == other.certificate
        && one.internal_ca == other.internal_ca
        && one.issuer == other.issuer
        && one.dialback_secret == other.dialback_secret
        && one.dialback_previous == other.dialback_previous
        && one.admin_token == other.admin_token
        && one.contacts_url == other.contacts_url
        && one.contacts_ca == other.contacts_ca
        && one.egress_credentials == other.egress_credentials
        && one.sip_pairs == other.sip_pairs
}
