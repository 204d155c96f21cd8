//! The command line of `analysis ring`.

use std::path::PathBuf;

use crate::experiment::Setup;
use crate::ring::Part;

/// `analysis ring`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these parts; may be given several times [default: all]
    #[arg(long = "part", value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// The folder for figures and charts
    #[arg(long, default_value = "report", value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

// === impl Args ===

impl Args {
    /// What is worked out.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let asked = |part: &Part| self.parts.is_empty() || self.parts.contains(part);
        Part::ALL.into_iter().filter(asked).collect()
    }

    /// With what: no balancer is started, this program has its code.
    ///
    /// # Errors
    /// When the report folder cannot be made.
    pub(crate) fn setup(&self) -> anyhow::Result<Setup> {
        super::on_processes(&self.out, Some(&std::env::current_exe()?), 1, 1)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn parts(arguments: &[&str]) -> anyhow::Result<Vec<Part>> {
        let words = ["analysis", "ring"].iter().chain(arguments);
        let Command::Ring(args) = Cli::try_parse_from(words)?.command else {
            anyhow::bail!("it is something else");
        };
        Ok(args.parts())
    }

    #[test]
    fn all_parts_are_worked_out_unless_some_are_named() {
        assert_eq!(parts(&[]).unwrap(), Part::ALL);
        let words = ["--part", "classic", "--part", "shares"];
        assert_eq!(parts(&words).unwrap(), [Part::Shares, Part::Classic]);
        assert!(parts(&["--part", "none"]).is_err());
    }
}
