//! Link variables: Kubernetes and Docker inject them for a service or container that is called
//! `balancer`, and they look like settings.

/// Reports whether a variable is a link variable and no setting:
/// `BALANCER_PORT=tcp://10.0.0.1:5000`, `BALANCER_SERVICE_HOST`, `BALANCER_SERVICE_PORT_HTTP`,
/// `BALANCER_PORT_5000_TCP_ADDR`, and the same of services such as `balancer-admin`.
pub fn is_link(name: &str, value: &str) -> bool {
    let Some(name) = name.strip_prefix("BALANCER_") else { return false };
    let ends = |end: &str| name.strip_suffix(end).is_some_and(is_start);
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    ends("SERVICE_HOST")
        || ends("SERVICE_PORT")
        || (is_url && ends("PORT"))
        || name.match_indices("SERVICE_PORT_").any(|(at, _)| is_start(&name[..at]))
        || name.match_indices("PORT_").any(|(at, port)| {
            is_start(&name[..at]) && is_protocol_of_port(&name[at + port.len()..])
        })
}

/// Reports whether a word may follow: nothing is before it, or another word.
fn is_start(before: &str) -> bool {
    before.is_empty() || before.ends_with('_')
}

/// Reports whether this is what follows `PORT_`: `5000_TCP`, `5000_TCP_ADDR` and so on.
fn is_protocol_of_port(text: &str) -> bool {
    let Some((port, rest)) = text.split_once('_') else { return false };
    let (protocol, what) = rest.split_once('_').unwrap_or((rest, "PROTO"));
    port.parse::<u16>().is_ok()
        && ["TCP", "UDP", "SCTP"].contains(&protocol)
        && ["ADDR", "PORT", "PROTO"].contains(&what)
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command};

    use super::*;
    use crate::config::settings::Settings;

    #[test]
    fn link_variables_are_told_from_settings() {
        for (name, value) in [
            ("BALANCER_PORT", "tcp://10.0.0.1:5000"),
            ("BALANCER_PORT", "udp://10.0.0.1:5000"),
            ("BALANCER_ADMIN_PORT", "tcp://10.0.0.1:5001"),
            ("BALANCER_SERVICE_HOST", "10.0.0.1"),
            ("BALANCER_SERVICE_PORT", "5000"),
            ("BALANCER_SERVICE_PORT_HTTP", "5000"),
            ("BALANCER_ADMIN_SERVICE_HOST", "10.0.0.1"),
            ("BALANCER_PORT_5000_TCP", "tcp://10.0.0.1:5000"),
            ("BALANCER_PORT_5000_TCP_ADDR", "10.0.0.1"),
            ("BALANCER_PORT_5000_UDP_PORT", "5000"),
            ("BALANCER_PORT_5000_SCTP_PROTO", "sctp"),
        ] {
            assert!(is_link(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("BALANCER_PORT", "5000"),
            ("BALANCER_PORT", ""),
            ("BALANCER_LISTEN", "tcp://10.0.0.1:5000"),
            ("OTHER_PORT", "tcp://10.0.0.1:5000"),
            ("BALANCER_PORT_X_TCP", "1"),
            ("BALANCER_XPORT", "tcp://10.0.0.1:5000"),
            ("BALANCER_ENV", "SERVICE_HOST=a"),
        ] {
            assert!(!is_link(name, value), "{name}={value}");
        }
        // No setting is taken for a link by its name alone.
        for flag in Settings::augment_args(Command::new("balancer")).get_arguments() {
            let name = flag.get_env().unwrap().to_str().unwrap();
            assert!(!is_link(name, "1"), "{name}");
        }
    }
}
