//! How one replica is chosen among the ready ones.

use std::sync::Arc;

use super::key::Key;
use super::table::{Replica, Table};

/// A way to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// By placement: the first of the key's owners that is acceptable.
    #[default]
    Hash,
}

impl Policy {
    /// The best ready replica that `accept` accepts; `None` when there is none.
    pub fn choose<'t>(
        self,
        table: &'t Table,
        key: &Key,
        mut accept: impl FnMut(&Arc<Replica>) -> bool,
    ) -> Option<&'t Arc<Replica>> {
        if table.ready_count() == 0 {
            return None;
        }
        match self {
            Policy::Hash => table
                .placement()
                .owners(key.as_bytes())
                .filter_map(|member| table.ready(member))
                .find(|replica| accept(replica)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::fleet::seat::{Hostname, MemberId, Seat};
    use crate::routing::placement::{Member, Placement, PlacementConfig, RingConfig};
    use crate::routing::table::ReplicaId;

    /// Five seats, of which `ready` have a ready replica.
    fn table(ready: &[u32]) -> Table {
        let member = |seat| MemberId::Seat(Seat::new(seat).unwrap());
        let members: Vec<Member> = (1..=5).map(|seat| Member::new(member(seat), 1)).collect();
        let config = PlacementConfig::Ring(RingConfig::default());
        let placement = Arc::new(Placement::build(&config, &members).unwrap());
        let replicas = ready.iter().map(|seat| {
            let name = Hostname::of_seat(Seat::new(*seat).unwrap());
            let address = SocketAddr::from(([127, 0, 0, 1], 9));
            Arc::new(Replica::new(ReplicaId((*seat).into()), name, member(*seat), address))
        });
        Table::new(placement, replicas, Vec::new())
    }

    #[test]
    fn a_key_goes_to_its_first_ready_owner_that_is_accepted() {
        let (all, some) = (table(&[1, 2, 3, 4, 5]), table(&[2, 4]));
        for key in 0..500_u32 {
            let key = Key::from(key.to_string().as_bytes());
            let owners: Vec<MemberId> = all
                .placement()
                .owners(key.as_bytes())
                .map(|index| all.placement().members()[index].id)
                .collect();
            let chosen = |table: &Table, not: Option<MemberId>| {
                Policy::Hash
                    .choose(table, &key, |replica| Some(replica.member()) != not)
                    .map(|replica| replica.member())
            };
            assert_eq!(chosen(&all, None), Some(owners[0]));
            assert_eq!(chosen(&all, Some(owners[0])), Some(owners[1]));
            let ready = |id: &&MemberId| matches!(id.seat().unwrap().get(), 2 | 4);
            assert_eq!(chosen(&some, None), owners.iter().find(ready).copied());
        }
    }

    #[test]
    fn nobody_is_chosen_when_none_is_ready_or_accepted() {
        let key = Key::from(&b"1"[..]);
        assert!(Policy::Hash.choose(&table(&[]), &key, |_| true).is_none());
        assert!(Policy::Hash.choose(&table(&[1, 2]), &key, |_| false).is_none());
    }
}
