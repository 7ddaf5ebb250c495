//! What a request asks for.

/// A SIP method. Their names are compared with case (RFC 3261 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SipMethod {
    Ack,
    Bye,
    Cancel,
    Info,
    Invite,
    Message,
    Notify,
    Options,
    Prack,
    Publish,
    Refer,
    Register,
    Subscribe,
    Update,
    /// One that no RFC of the registry's defines: 501 (RFC 3261 section 21.5.2).
    Unknown,
}

/// Each with its name.
const NAMES: [(SipMethod, &str); 14] = [
    (SipMethod::Ack, "ACK"),
    (SipMethod::Bye, "BYE"),
    (SipMethod::Cancel, "CANCEL"),
    (SipMethod::Info, "INFO"),
    (SipMethod::Invite, "INVITE"),
    (SipMethod::Message, "MESSAGE"),
    (SipMethod::Notify, "NOTIFY"),
    (SipMethod::Options, "OPTIONS"),
    (SipMethod::Prack, "PRACK"),
    (SipMethod::Publish, "PUBLISH"),
    (SipMethod::Refer, "REFER"),
    (SipMethod::Register, "REGISTER"),
    (SipMethod::Subscribe, "SUBSCRIBE"),
    (SipMethod::Update, "UPDATE"),
];

impl SipMethod {
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let found = NAMES.iter().find(|(_, known)| *known == name);
        found.map_or(Self::Unknown, |(method, _)| *method)
    }

    /// Its name; `None` for what is not known.
    #[must_use]
    pub fn as_str(self) -> Option<&'static str> {
        let found = NAMES.iter().find(|(method, _)| *method == self);
        found.map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_found_by_its_name_and_no_other_spelling() {
        for (method, name) in NAMES {
            assert_eq!(SipMethod::of_name(name), method);
            assert_eq!(method.as_str(), Some(name));
            assert_eq!(
                SipMethod::of_name(&name.to_ascii_lowercase()),
                SipMethod::Unknown
            );
        }
        assert_eq!(SipMethod::Unknown.as_str(), None);
    }
}
