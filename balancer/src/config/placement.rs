//! How the key space is divided.

use super::ConfigError;
use super::check::{must, within};
use super::settings::{
    ClassicHashKind, ClassicSettings, MaglevSettings, PlacementKind, ProbingKind, RingSettings,
    Settings,
};
use crate::routing::placement::{
    ClassicConfig, ClassicHash, MaglevConfig, PlacementConfig, Probing, RingConfig, Secret,
    TableSize,
};

/// The most virtual nodes of a replica: more only cost memory.
const VIRTUAL_NODES_MAX: u32 = 65_536;

/// The most slots of the classic ring.
const SLOTS_MAX: u32 = 1 << 20;

/// All tables are checked, whichever is used: a mistake in another would only show later.
pub(super) fn placement(settings: &Settings, listed: bool) -> Result<PlacementConfig, ConfigError> {
    let (ring, classic) = (ring(&settings.ring)?, classic(&settings.classic)?);
    // Whatever is keyed has the one secret: an outsider is the same to all.
    let secret = ring.secret;
    let maglev = maglev(&settings.maglev, secret)?;
    let placement = match settings.placement.unwrap_or(PlacementKind::Ring) {
        PlacementKind::Ring => PlacementConfig::Ring(ring),
        PlacementKind::Classic => PlacementConfig::Classic(classic),
        PlacementKind::Ketama => PlacementConfig::Ketama,
        PlacementKind::Maglev => PlacementConfig::Maglev(maglev),
        PlacementKind::Rendezvous => PlacementConfig::Rendezvous(secret),
        PlacementKind::Jump => PlacementConfig::Jump(secret),
    };
    if listed && placement.needs_seats() {
        let name = placement.name();
        let why = format!("must not be {name:?} for listed replicas: it needs seats");
        return Err(must("placement", why));
    }
    Ok(placement)
}

fn ring(settings: &RingSettings) -> Result<RingConfig, ConfigError> {
    let default = RingConfig::default();
    let virtual_nodes = settings.virtual_nodes.unwrap_or(default.virtual_nodes);
    within("ring.virtual_nodes", virtual_nodes, 1..=VIRTUAL_NODES_MAX)?;
    let secret = settings.secret.map_or(default.secret, |hex| Secret(hex.0));
    Ok(RingConfig { virtual_nodes, secret })
}

fn maglev(settings: &MaglevSettings, secret: Secret) -> Result<MaglevConfig, ConfigError> {
    let table_size = match settings.table_size {
        Some(size) => {
            TableSize::new(size).map_err(|bad| must("maglev.table_size", bad.to_string()))?
        }
        None => TableSize::default(),
    };
    Ok(MaglevConfig { table_size, secret })
}

fn classic(settings: &ClassicSettings) -> Result<ClassicConfig, ConfigError> {
    let default = ClassicConfig::default();
    let slots = settings.slots.unwrap_or(default.slots);
    within("classic.slots", slots, 1..=SLOTS_MAX)?;
    let virtual_nodes = settings.virtual_nodes.unwrap_or(default.virtual_nodes);
    within("classic.virtual_nodes", virtual_nodes, 1..=slots)?;
    let given = [
        ("classic.request_coefficients", &settings.request_coefficients, [17, 2, 1]),
        ("classic.seat_coefficients", &settings.seat_coefficients, [25, 0, 1]),
        ("classic.virtual_node_coefficients", &settings.virtual_node_coefficients, [0, 2, 1]),
    ];
    let kind = settings.hash.unwrap_or(ClassicHashKind::Polynomial);
    for (field, coefficients, _) in &given {
        if kind == ClassicHashKind::SipHash && coefficients.is_some() {
            return Err(must(*field, "is for classic.hash = \"polynomial\" only"));
        }
        if coefficients.as_ref().is_some_and(Vec::is_empty) {
            return Err(must(*field, "must have one number at least"));
        }
    }
    let [request, seat, virtual_node] =
        given.map(|(_, coefficients, default)| coefficients.clone().unwrap_or(default.into()));
    let hash = match kind {
        ClassicHashKind::Polynomial => ClassicHash::Polynomial { request, seat, virtual_node },
        ClassicHashKind::SipHash => ClassicHash::SipHash,
    };
    let probing = match settings.probing.unwrap_or(ProbingKind::Linear) {
        ProbingKind::Linear => Probing::Linear,
        ProbingKind::Quadratic => Probing::Quadratic,
    };
    Ok(ClassicConfig { slots, virtual_nodes, hash, probing })
}
