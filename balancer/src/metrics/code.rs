//! How requests and attempts end.

/// How a request, or an attempt at a replica, has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// 1xx: another protocol from then on.
    Informational,
    /// 2xx
    Success,
    /// 3xx
    Redirection,
    /// 4xx
    ClientError,
    /// 5xx
    ServerError,
    /// An attempt only: the replica gave no answer.
    Error,
    /// Nobody had an answer: the client went away, or the answer broke off.
    None,
}

/// How many there are.
pub(super) const CODES: usize = Code::ALL.len();

// === impl Code ===

impl Code {
    /// Each once.
    pub const ALL: [Self; 7] = [
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
        Self::Error,
        Self::None,
    ];

    /// How a request can end.
    pub const OF_REQUESTS: [Self; 6] = [
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
        Self::None,
    ];

    /// The class of a status. One beyond 599 is taken for a 5xx (RFC 9110 15).
    pub fn of(status: u16) -> Self {
        match status {
            0..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }

    /// The value of the label `code`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Error => "error",
            Self::None => "none",
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_index_and_label() {
        let indexes: Vec<usize> = Code::ALL.iter().map(|code| code.index()).collect();
        assert_eq!(indexes, (0..CODES).collect::<Vec<_>>());
        let labels: std::collections::BTreeSet<_> = Code::ALL.iter().map(|c| c.label()).collect();
        assert_eq!(labels.len(), CODES);
    }

    #[test]
    fn a_status_has_the_code_of_its_class() {
        for (status, label) in
            [(101, "1xx"), (200, "2xx"), (304, "3xx"), (499, "4xx"), (500, "5xx"), (999, "5xx")]
        {
            assert_eq!(Code::of(status).label(), label);
        }
    }
}
