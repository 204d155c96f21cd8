//! What an `/add` and an `/rm` would make of the ring, without doing either.

use std::collections::BTreeMap;

use super::record::WHOLE;
use super::{Hostname, Roster};
use crate::fleet::change::Refused;
use crate::fleet::listed::Server;
use crate::fleet::seat::MemberId;

/// What is rehearsed: first an `/add`, then an `/rm`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// How many replicas come; 0 for none.
    pub add: usize,
    /// The same as servers to be listed, whose addresses need no resolving; none where replicas are
    /// owned.
    pub servers: Vec<Server>,
    /// Those that go.
    pub rm: Vec<Hostname>,
}

/// The members of a ring, with their weights, and how many tenths of their points are on it.
type Members = BTreeMap<MemberId, (u32, u8)>;

/// What the ring would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// Its members as [`Roster::members`] has them, ascending. Those that come have all their
    /// points: what a slow start comes to.
    pub members: Vec<(MemberId, u32, u8)>,
    /// Those of them that come.
    pub added: Vec<MemberId>,
}

// === impl Roster ===

impl Roster {
    /// What the members would be.
    ///
    /// # Errors
    /// [`Refused`], as the calls themselves would be.
    pub fn rehearse(&self, rehearsal: &Rehearsal) -> Result<Rehearsed, Refused> {
        let members = self.members().map(|(member, weight, tenths)| (member, (weight, tenths)));
        let mut members: Members = members.collect();
        let added = match self.config.listed {
            true => self.rehearse_add_listed(rehearsal, &mut members)?,
            false => self.rehearse_add(rehearsal.add, &mut members)?,
        };
        let leaving = match self.config.listed {
            true => self.rehearse_rm_listed(&rehearsal.rm)?,
            false => self.seats_of(&rehearsal.rm)?.into_iter().map(MemberId::Seat).collect(),
        };
        members.retain(|member, _| !leaving.contains(member));
        let members =
            members.into_iter().map(|(member, (weight, tenths))| (member, weight, tenths));
        Ok(Rehearsed { members: members.collect(), added })
    }

    fn rehearse_add(&self, n: usize, members: &mut Members) -> Result<Vec<MemberId>, Refused> {
        if n == 0 {
            return Ok(Vec::new());
        }
        let seats = self.free_seats(n)?;
        let added: Vec<MemberId> = seats.into_iter().map(MemberId::Seat).collect();
        members.extend(added.iter().map(|member| (*member, (1, WHOLE))));
        Ok(added)
    }

    fn rehearse_add_listed(
        &self,
        rehearsal: &Rehearsal,
        members: &mut Members,
    ) -> Result<Vec<MemberId>, Refused> {
        let Rehearsal { add, servers, .. } = rehearsal;
        if *add == 0 {
            return Ok(Vec::new());
        }
        self.may_enlist(*add, servers)?;
        let mut added = Vec::new();
        for server in servers {
            // Names cannot be foretold; whoever asks has told them apart.
            let Some(address) = server.literal().map(MemberId::Address) else { continue };
            // The same address may be written otherwise.
            if added.contains(&address) {
                return Err(Refused::Repeated(server.hostname()));
            }
            if members.insert(address, (server.weight, WHOLE)).is_some() {
                return Err(Refused::InUse(server.hostname()));
            }
            added.push(address);
        }
        Ok(added)
    }

    /// The members that an `/rm` of listed replicas takes along: all addresses of each server.
    fn rehearse_rm_listed(&self, hostnames: &[Hostname]) -> Result<Vec<MemberId>, Refused> {
        let leaving = self.replicas_of_all(hostnames)?.into_values().flatten();
        let member = |hostname: Hostname| self.records.get(&hostname)?.place.member();
        Ok(leaving.filter_map(member).collect())
    }
}
