//! every endpoint of the contract with its expected answer, then a replica killed under load.

mod aftermath;
mod contract;
mod judge;
mod kill;

use serde::Serialize;

use super::{Problems, Setup};
use crate::report::Table;

pub(crate) use kill::Shot;

/// A line of the table: something that was promised and whether it came so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) call: String,
    pub(crate) case: String,
    pub(crate) expected: String,
    pub(crate) passed: bool,
    /// What came instead; empty when it passed.
    pub(crate) instead: String,
}

/// Checks the contract, writes `a3-contract.csv` and `.md`; kills a replica under load, writes
/// `a3-timeline.csv`, `a3-requests.csv`, `a3.svg`, `a3.png` and `a3.md`.
///
/// # Errors
/// When the balancer or a file is not as it should be.
pub(crate) async fn run(setup: &Setup, shot: &Shot) -> anyhow::Result<Problems> {
    let checks = contract::run(setup).await?;
    setup.report.csv("a3-contract.csv", &checks)?;
    setup.report.section("a3-contract", &text(setup, &checks))?;

    let killed = kill::run(setup, shot).await?;
    let mut problems = failed(&checks);
    problems.extend(killed);
    Ok(problems)
}

// === impl Check ===

impl Check {
    /// A check that came out as the result says.
    pub(crate) fn new(
        call: impl Into<String>,
        case: impl Into<String>,
        expected: impl Into<String>,
        result: anyhow::Result<()>,
    ) -> Self {
        let instead = result.as_ref().err().map_or_else(String::new, |error| format!("{error:#}"));
        Self {
            call: call.into(),
            case: case.into(),
            expected: expected.into(),
            passed: result.is_ok(),
            instead,
        }
    }
}

/// The failed ones in words.
fn failed(checks: &[Check]) -> Problems {
    let bad = checks.iter().filter(|check| !check.passed);
    bad.map(|check| {
        format!("{} ({}): expected {}; {}", check.call, check.case, check.expected, check.instead)
    })
    .collect()
}

/// The checks as Markdown.
fn table(checks: &[Check]) -> String {
    let mut table = Table::new(&["call", "case", "expected", "result"]);
    for check in checks {
        let result = match check.passed {
            true => "pass".to_owned(),
            false => format!("**FAIL**: {}", check.instead),
        };
        table.row([
            format!("`{}`", check.call),
            check.case.clone(),
            check.expected.clone(),
            result,
        ]);
    }
    table.markdown()
}

fn text(setup: &Setup, checks: &[Check]) -> String {
    let passed = checks.iter().filter(|check| check.passed).count();
    format!(
        "**{passed} of {} rows pass.**\n\n{}\n{}",
        checks.len(),
        table(checks),
        setup.provenance()
    )
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_failing_row_says_what_came_instead() {
        let checks = [
            Check::new("GET /rep", "three replicas", "200, N = 3", Ok(())),
            Check::new("POST /add", "n = 0", "400", Err(anyhow!("inner").context("status 500"))),
        ];
        assert_eq!(failed(&checks), ["POST /add (n = 0): expected 400; status 500: inner"]);
        let table = table(&checks);
        assert!(table.contains("| `GET /rep` | three replicas | 200, N = 3 | pass |"), "{table}");
        assert!(table.contains("**FAIL**: status 500: inner"), "{table}");
    }
}
