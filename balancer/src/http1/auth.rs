//! Authentication that belongs to a connection and not to a request: NTLM, Negotiate, Kerberos
//! (RFC 4559 6; MS-NTHT). A server that speaks it treats all later requests of the connection as
//! those of the client that has logged in.

/// The beginnings of the schemes that authenticate a connection. As HAProxy does, "Nego" stands for
/// `Negotiate` and for its successors (`Nego2`).
const CONNECTION_BOUND: [&[u8]; 3] = [b"ntlm", b"nego", b"kerberos"];

/// What the credentials of a request, or the challenges of an answer, do to the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// A scheme authenticates the connection.
    pub binds: bool,
    /// A scheme authenticates the request only, as `Basic` and `Bearer` do.
    pub per_request: bool,
}

/// Whether a byte stands in a quoted string (RFC 9110 5.6.4).
#[derive(Clone, Copy, Debug, Default)]
struct Quotes {
    quoted: bool,
    escaped: bool,
}

// === impl Auth ===

impl Auth {
    /// Takes the value of a field: credentials, or a list of challenges (RFC 9110 11.6.1).
    pub fn read(&mut self, value: &[u8]) {
        let mut quotes = Quotes::default();
        value.iter().for_each(|byte| quotes.pass(*byte));
        // Another reader may see schemes behind a quote that is not closed.
        let is_quoting = !quotes.quoted;
        let mut quotes = Quotes::default();
        let elements = value.split(|byte| {
            quotes.pass(*byte);
            *byte == b',' && !(is_quoting && quotes.quoted)
        });
        for element in elements.map(<[u8]>::trim_ascii) {
            let is_end = |byte: &u8| matches!(byte, b' ' | b'\t');
            let scheme = element.split(is_end).next().unwrap_or_default();
            let begins = |name: &&[u8]| {
                scheme.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
            };
            if CONNECTION_BOUND.iter().any(begins) {
                self.binds = true;
            } else if !scheme.is_empty() && !scheme.contains(&b'=') {
                // With an equals sign it is a parameter of the challenge before.
                self.per_request = true;
            }
        }
    }

    /// Reports whether nothing but the connection can be authenticated.
    pub fn binds_only(self) -> bool {
        self.binds && !self.per_request
    }
}

// === impl Quotes ===

impl Quotes {
    fn pass(&mut self, byte: u8) {
        let escapes = self.quoted && !self.escaped && byte == b'\\';
        self.quoted ^= byte == b'"' && !self.escaped;
        self.escaped = escapes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> Auth {
        let mut auth = Auth::default();
        values.iter().for_each(|value| auth.read(value.as_bytes()));
        auth
    }

    #[test]
    fn connection_bound_schemes_are_found_in_any_case_and_place() {
        for values in [
            &["NTLM"][..],
            &["ntlm TlRMTVNTUAAB=="],
            &["Negotiate"],
            &["NEGOTIATE YII="],
            &["Nego2"],
            &["Kerberos x"],
            &["\tNTLM"],
            &["Basic realm=\"a\"", "NTLM"],
            &["Basic realm=\"a, b\", NTLM"],
            &["Negotiate, Basic realm=x"],
            &["Basic realm=\"open, NTLM"],
            &["Basic realm=\"a\\\"\", NTLM, Digest realm=\"b\\\"\""],
            &["Digest realm=\"a\", nonce=\"b\" ,\tNTLM"],
        ] {
            assert!(of(values).binds, "{values:?}");
        }
    }

    #[test]
    fn other_schemes_do_not_bind() {
        for values in [
            &[""][..],
            &["Basic dXNlcjpudGxt"],
            &["Basic realm=\"NTLM\""],
            &["Basic realm=\"a, NTLM, b\", charset=\"UTF-8\""],
            &["Bearer ntlm.negotiate.kerberos"],
            &["Digest username=\"negotiate\", realm=\"ntlm\""],
            &["Ntl", "Neg"],
        ] {
            assert!(!of(values).binds, "{values:?}");
        }
    }

    #[test]
    fn a_client_has_a_choice_where_another_scheme_is_offered() {
        assert!(of(&["NTLM", "Negotiate abc="]).binds_only());
        assert!(!of(&["Negotiate", "Basic realm=\"x\""]).binds_only());
        assert!(!of(&["NTLM, Digest realm=\"x\", nonce=\"y\""]).binds_only());
        assert!(!of(&["Basic"]).binds_only() && !of(&[]).binds_only());
    }

    proptest! {
        /// Whatever stands before it in a well-formed list, the scheme is found.
        #[test]
        fn a_scheme_is_found_behind_any_challenge(realm in "[ -!#-~]{0,20}") {
            let basic = format!("Basic realm=\"{realm}\"");
            let both = format!("{basic}, nTLm");
            prop_assert!(of(&[&both]).binds);
            prop_assert!(!of(&[&basic]).binds);
        }
    }
}
