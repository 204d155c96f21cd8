//! `[engine]`.

use clap::Args;
use serde::Deserialize;

use super::super::value::Span;
use super::first_of;

/// `[engine]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSettings {
    /// docker: time to wait at the start for an engine that is absent or hangs; 0s for not at all
    /// [default: 30s]
    #[arg(id = "engine-wait", long, env = "BALANCER_ENGINE_WAIT", value_name = "DURATION")]
    pub wait: Option<Span>,
}

// === impl EngineSettings ===

impl EngineSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; wait;)
    }
}
