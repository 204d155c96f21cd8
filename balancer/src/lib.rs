//! A consistent-hashing HTTP load balancer that owns its replicas.
