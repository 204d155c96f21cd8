//! Whether the balancer can be seen, of which only the changes are told.

use super::round::{Ended, LookError};

/// How the balancer was at the last round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Condition {
    /// All of it could be seen, or it was never looked at.
    #[default]
    Seen,
    /// Not every node could be.
    Incomplete,
    /// It could not be asked for its nodes.
    Lost,
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum News<'a> {
    /// It cannot be asked.
    Lost(&'a LookError),
    /// It can be asked, but not every node can be seen.
    Incomplete(&'a LookError),
    /// It could not be asked, and all of it can be seen.
    Back,
    /// Every node can be seen again.
    Complete,
}

impl Condition {
    /// Takes notice of how a round ended; tells what has changed by it.
    pub(super) fn observe<'a>(&mut self, ended: &'a Ended) -> Option<News<'a>> {
        let (now, news) = match ended {
            Ended::Stopped => return None,
            Ended::Done { .. } if *self == Self::Lost => (Self::Seen, News::Back),
            Ended::Done { .. } => (Self::Seen, News::Complete),
            Ended::Blind(why) if why.is_lost() => (Self::Lost, News::Lost(why)),
            Ended::Blind(why) => (Self::Incomplete, News::Incomplete(why)),
        };
        let changed = *self != now;
        *self = now;
        changed.then_some(news)
    }
}

impl LookError {
    /// Whether the balancer could not even be asked for its nodes; what it answers to that may be
    /// wrong all the same.
    fn is_lost(&self) -> bool {
        match self {
            LookError::List(cause) => !cause.is_malformed(),
            LookError::Node { .. } | LookError::Twice(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::api::CallError;
    use super::*;

    fn lost() -> Ended {
        Ended::Blind(LookError::List(CallError::TimedOut(Duration::from_secs(1))))
    }

    fn incomplete() -> Ended {
        Ended::Blind(LookError::Twice("a".to_owned()))
    }

    /// What is told of rounds that end so, one letter a round.
    fn told(rounds: &[Ended]) -> String {
        let mut condition = Condition::default();
        let letter = |news: Option<News<'_>>| match news {
            None => '-',
            Some(News::Lost(_)) => 'L',
            Some(News::Incomplete(_)) => 'I',
            Some(News::Back) => 'B',
            Some(News::Complete) => 'C',
        };
        rounds.iter().map(|ended| letter(condition.observe(ended))).collect()
    }

    #[test]
    fn only_changes_are_told() {
        let good = || Ended::Done { failed: 0 };
        assert_eq!(told(&[good(), good()]), "--");
        assert_eq!(told(&[lost(), lost(), lost(), good(), good(), lost()]), "L--B-L");
        assert_eq!(told(&[incomplete(), incomplete(), good(), incomplete()]), "I-CI");
        assert_eq!(told(&[lost(), incomplete(), lost(), Ended::Stopped, lost(), good()]), "LIL--B");
    }

    #[test]
    fn an_action_that_fails_is_no_word_about_the_balancer() {
        assert_eq!(told(&[Ended::Done { failed: 1 }, lost(), Ended::Done { failed: 2 }]), "-LB");
    }

    #[test]
    fn a_list_that_cannot_be_read_is_no_silence() {
        let bad = serde_json::from_str::<bool>("{").unwrap_err();
        assert_eq!(told(&[Ended::Blind(LookError::List(CallError::Malformed(bad)))]), "I");
    }
}
