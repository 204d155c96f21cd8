//! The connection to a replica that belongs to one client's connection, because the replica
//! authenticates connections (NTLM, Negotiate, Kerberos; see [`crate::http1::auth`]).
//!
//! Such a connection is never kept for other clients. The next requests of the client's connection
//! go over it, and both end together.

use std::sync::Arc;
use std::task::Context;

use super::wire::Wire;
use crate::routing::table::Replica;

/// What a client's connection is bound to.
#[derive(Default)]
pub enum Binding {
    /// Nothing: its requests go over any connection.
    #[default]
    None,
    /// This connection, on which nothing is under way.
    Idle(Box<Bound>),
    /// A connection that carries the current request, or that has ended. A client's connection
    /// that is in this state after a request ends.
    Taken,
}

/// A connection to a replica that belongs to a client's connection.
pub struct Bound {
    /// The replica.
    pub replica: Arc<Replica>,
    /// The connection.
    pub wire: Box<Wire>,
}

// === impl Binding ===

impl Binding {
    /// Binds the client's connection to `wire`, whose last answer is whole.
    pub fn bind(&mut self, replica: &Arc<Replica>, mut wire: Box<Wire>) {
        wire.rest();
        *self = Self::Idle(Box::new(Bound { replica: Arc::clone(replica), wire }));
    }

    /// Takes the connection for a request.
    pub fn take(&mut self) -> Option<Box<Bound>> {
        match std::mem::take(self) {
            Self::None => None,
            Self::Idle(bound) => {
                *self = Self::Taken;
                Some(bound)
            }
            Self::Taken => {
                *self = Self::Taken;
                None
            }
        }
    }

    /// Returns the replica of the idle connection.
    pub fn replica(&self) -> Option<Arc<Replica>> {
        match self {
            Self::None | Self::Taken => None,
            Self::Idle(bound) => Some(Arc::clone(&bound.replica)),
        }
    }

    /// Reports whether a connection was taken and not bound again.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Taken)
    }

    /// Reports whether an idle connection waits for the next request.
    pub fn is_idle(&self) -> bool {
        matches!(self, Self::Idle(_))
    }

    /// Reports whether the idle connection has ended or its replica leaves: then the client's
    /// connection ends, too. Wakes the task of `cx` when the connection ends.
    pub fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::None | Self::Taken => false,
            Self::Idle(bound) => {
                let Bound { replica, wire } = &mut **bound;
                replica.is_closed() || replica.is_dead() || !wire.is_silent(cx)
            }
        }
    }
}
