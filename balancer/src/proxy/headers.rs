//! Which fields cross the balancer.

use actix_web::http::header::{CONNECTION, HeaderMap, HeaderName};
use smallvec::SmallVec;

/// Fields that speak of one connection only (RFC 9110 7.6.1), and `Trailer`, since trailers are
/// not forwarded (6.6.2). Lower case.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields of a message that do not cross.
pub struct HopByHop<'a>(SmallVec<[&'a [u8]; 4]>);

impl<'a> HopByHop<'a> {
    /// Those of any message, and those that this one's `Connection` names.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let values = headers.get_all(CONNECTION);
        let named = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        Self(named.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()).collect())
    }

    /// Whether a field stays behind.
    pub fn has(&self, name: &HeaderName) -> bool {
        HOP_BY_HOP.contains(&name.as_str())
            || self.0.iter().any(|named| named.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn what_connection_names_stays_behind_and_the_rest_crosses() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("close, X-Secret"));
        headers.append(CONNECTION, HeaderValue::from_static(",x-other ,"));
        let hop = HopByHop::of(&headers);
        for name in ["connection", "te", "upgrade", "x-secret", "x-other", "transfer-encoding"] {
            assert!(hop.has(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["host", "content-length", "x-secrets", "accept"] {
            assert!(!hop.has(&HeaderName::from_static(name)), "{name}");
        }
    }
}
