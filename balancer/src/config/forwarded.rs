//! What is passed on about the client and the way of its request. The fuzz targets read this file in:
//! it needs nothing of the other settings.

use ipnet::IpNet;

/// The fields about the client and the way of a request: which are believed, which are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedConfig {
    /// The networks of trusted proxies, whose `X-Forwarded-*`, `Forwarded` and `X-Real-IP` are
    /// believed and added to. Empty: no client is trusted. An IPv4 client of an IPv6 listener is
    /// compared by its IPv4 address.
    pub trust: Vec<IpNet>,
    /// The name in `Via: 1.1 NAME` of requests and answers, if they get one.
    pub via: Option<String>,
    /// Whether every request to a replica has a `Forwarded` (RFC 7239). Otherwise only those of
    /// trusted proxies that sent one.
    pub rfc7239: bool,
    /// How often one request may pass through this balancer before it is answered 508; at least 1.
    pub max_passes: usize,
}

// === impl ForwardedConfig ===

impl Default for ForwardedConfig {
    fn default() -> Self {
        Self { trust: Vec::new(), via: None, rfc7239: false, max_passes: 1 }
    }
}
