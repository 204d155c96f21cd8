//! A consistent-hashing HTTP load balancer that owns its replicas.

pub mod fleet;
pub mod routing;
