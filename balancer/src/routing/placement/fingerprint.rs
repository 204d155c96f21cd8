//! Whether two placements agree, in one number.

use std::fmt::Write as _;

use siphasher::sip::SipHasher13;

use super::{ClassicConfig, ClassicHash, Member, PlacementConfig, Probing, Secret};

/// SipHash-1-3 (without a key) of a text that says all that owners depend on. `members` ascending.
pub(super) fn of(config: &PlacementConfig, members: &[Member]) -> u64 {
    // The number is that of the text: another one when owners are worked out differently.
    let mut text = format!("balancer placement 1\n{}\n", settings(config));
    // Without weights there is nothing to tell apart.
    let weighs = !matches!(config, PlacementConfig::Jump(_));
    for member in members {
        let weight = if weighs { member.weight } else { 1 };
        writeln!(text, "{} weight={weight} tenths={}", member.id, member.tenths())
            .expect("a String takes all");
    }
    SipHasher13::new().hash(text.as_bytes())
}

fn settings(config: &PlacementConfig) -> String {
    let name = config.name();
    match config {
        PlacementConfig::Ring(ring) => {
            format!("{name} virtual_nodes={} secret={}", ring.virtual_nodes, effect(ring.secret))
        }
        PlacementConfig::Classic(classic) => format!("{name} {}", classic_settings(classic)),
        PlacementConfig::Ketama => name.to_owned(),
        PlacementConfig::Maglev(maglev) => {
            let (size, secret) = (maglev.table_size.get(), effect(maglev.secret));
            format!("{name} table_size={size} secret={secret}")
        }
        PlacementConfig::Rendezvous(secret) | PlacementConfig::Jump(secret) => {
            format!("{name} secret={}", effect(*secret))
        }
    }
}

fn classic_settings(classic: &ClassicConfig) -> String {
    let ClassicConfig { slots, virtual_nodes, hash, probing } = classic;
    let hash = match hash {
        ClassicHash::Polynomial { request, seat, virtual_node } => {
            format!("polynomial {}", [request, seat, virtual_node].map(|it| numbers(it)).join(" "))
        }
        ClassicHash::SipHash => "siphash".to_owned(),
    };
    let probing = match probing {
        Probing::Linear => "linear",
        Probing::Quadratic => "quadratic",
    };
    format!("slots={slots} virtual_nodes={virtual_nodes} hash={hash} probing={probing}")
}

fn numbers(coefficients: &[u64]) -> String {
    let texts: Vec<String> = coefficients.iter().map(u64::to_string).collect();
    texts.join(",")
}

/// What a secret does to one word: enough to tell two apart, and no way back.
fn effect(secret: Secret) -> u64 {
    secret.hasher().hash(b"fingerprint")
}
