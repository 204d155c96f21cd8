//! Who takes no new requests though it could: switched off by whoever calls the API, or by the
//! overload controller. It keeps its seat, and what is in flight at it goes on.

use super::record::Record;
use super::{Hostname, Roster};
use crate::fleet::event::{Switched, What};
use crate::fleet::overload::{self, NodeLoad, OverloadConfig};
use crate::fleet::plan::Phase;

/// Who has switched a replica off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Off {
    /// The overload controller, which switches it on again.
    Controller,
    /// A caller of the API: the controller leaves it alone.
    Caller,
}

impl Roster {
    /// The replicas that take requests, or would if they were not switched off, in the order in
    /// which they joined.
    pub fn able(&self) -> Vec<&Hostname> {
        let mut able: Vec<(Option<u64>, &Hostname)> =
            self.fit_to_serve().map(|(hostname, record)| (record.joined, hostname)).collect();
        able.sort_unstable();
        able.into_iter().map(|(_, hostname)| hostname).collect()
    }

    /// The same by their seats.
    pub fn able_by_seat(&self) -> impl Iterator<Item = &Hostname> {
        self.fit_to_serve().map(|(hostname, _)| hostname)
    }

    /// Whether a replica can be switched on and off: it has joined, and is not leaving. One that is
    /// ejected can, too: that lasts beyond its ejection.
    pub fn may_be_switched(&self, hostname: &Hostname) -> bool {
        let joined = |record: &Record| record.phase == Phase::Up && record.joined.is_some();
        self.records.get(hostname).is_some_and(joined)
    }

    /// Whether a replica is switched on; `None` for one that is not known.
    pub fn is_enabled(&self, hostname: &Hostname) -> Option<bool> {
        self.records.get(hostname).map(Record::is_enabled)
    }

    /// Switches a replica on or off for a caller. `queued` are its requests in flight.
    pub fn enable(&mut self, hostname: &Hostname, enable: bool, queued: usize) {
        let off = (!enable).then_some(Off::Caller);
        self.switch(hostname, off, queued);
    }

    /// Switches off those that are overloaded, and on again those that are not any more; `queued`
    /// tells the requests in flight at one.
    pub fn relieve(&mut self, config: &OverloadConfig, queued: impl Fn(&Hostname) -> usize) {
        let load = |(hostname, record): (&Hostname, &Record)| NodeLoad {
            node: hostname.clone(),
            enabled: record.is_enabled(),
            queued: queued(hostname),
        };
        let mine = |(_, record): &(&Hostname, &Record)| record.off != Some(Off::Caller);
        let loads: Vec<NodeLoad<Hostname>> = self.fit_to_serve().filter(mine).map(load).collect();
        for action in overload::decide(&loads, config) {
            let off = (!action.enable).then_some(Off::Controller);
            self.switch(&action.node, off, action.queued);
        }
    }

    /// Whether fewer than `least` serve and the controller has switched off some that could.
    pub fn is_short(&self, least: usize) -> bool {
        let held = |record: &Record| record.off == Some(Off::Controller);
        self.records.values().any(held)
            && self.serving().count() < least
            && self.fit_to_serve().any(|(_, record)| held(record))
    }

    fn switch(&mut self, hostname: &Hostname, off: Option<Off>, queued: usize) {
        let Some(record) = self.records.get_mut(hostname) else { return };
        let before = std::mem::replace(&mut record.off, off);
        if before.is_some() == off.is_some() {
            return;
        }
        let place = record.place;
        let switched = Switched { queued, by_controller: off.or(before) == Some(Off::Controller) };
        self.tell(
            hostname,
            place,
            match off {
                Some(_) => What::Disabled(switched),
                None => What::Enabled(switched),
            },
        );
        self.revision += 1;
    }
}
