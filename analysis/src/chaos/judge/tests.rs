use super::*;
use crate::chaos::replicas::Handle;
use crate::load::Failure;

fn found(pid: u32, seat: Option<u32>, runs: bool) -> Found {
    Found { handle: Handle::Process(pid), seat, hostname: None, runs }
}

fn settled(seats: &[Option<u32>], spares: usize) -> Settled {
    let found = seats.iter().enumerate().map(|(pid, seat)| found(pid as u32, *seat, true));
    Settled {
        asked: 2,
        spares,
        listed: Some(vec!["S1".to_owned(), "S2".to_owned()]),
        found: found.collect(),
        after: Duration::ZERO,
    }
}

fn verdicts(settled: &Settled) -> Vec<Verdict> {
    settled.checks().iter().map(|check| check.verdict).collect()
}

const PASS: Verdict = Verdict::Pass;
const FAIL: Verdict = Verdict::Fail;

#[test]
fn the_fleet_that_was_asked_for_passes() {
    assert!(settled(&[Some(2), Some(1)], 0).is_well());
    assert!(settled(&[Some(2), None, Some(1)], 1).is_well());
}

#[test]
fn a_seat_taken_twice_an_orphan_and_a_wrong_number_are_told_apart() {
    assert_eq!(verdicts(&settled(&[Some(1), Some(1)], 0)), [PASS, FAIL, PASS]);
    assert_eq!(verdicts(&settled(&[Some(1), Some(2), None], 0)), [PASS, PASS, FAIL]);
    assert_eq!(verdicts(&settled(&[Some(1), Some(3)], 0)), [PASS, FAIL, PASS]);
    let mut silent = settled(&[Some(1), Some(2)], 0);
    silent.listed = None;
    assert_eq!(verdicts(&silent), [FAIL, PASS, PASS]);
    let mut dead = settled(&[Some(1), Some(2)], 0);
    dead.found[0].runs = false;
    assert_eq!(verdicts(&dead), [PASS, PASS, FAIL]);
}

fn failed(at: u64) -> Failed {
    let at = Duration::from_secs(at);
    Failed { launched: at, done: at, failure: Failure::Status(502) }
}

#[test]
fn gets_may_fail_only_while_the_balancer_is_down() {
    let excused = [(Duration::from_secs(5), Duration::from_secs(6))];
    assert_eq!(gets(10, &[failed(5)], &excused).verdict, PASS);
    let bad = gets(10, &[failed(5), failed(7), failed(8)], &excused);
    assert_eq!(bad.verdict, FAIL);
    assert!(bad.detail.starts_with("2 of 10 failed"), "{}", bad.detail);
    assert!(bad.detail.contains("(2 × status 502); 1 within (1 restarts, 1.0 s"), "{}", bad.detail);
}

fn posts(answered: &[u32], carried_out: &[(u32, u32)], dropped: Option<u64>) -> Vec<Verdict> {
    let entries = Entries { counts: carried_out.iter().copied().collect(), strange: 0 };
    let posts = Posts { sent: 9, answered: answered.to_vec(), entries, dropped };
    posts.checks().iter().map(|check| check.verdict).collect()
}

#[test]
fn a_post_that_failed_may_have_been_carried_out_or_not() {
    assert_eq!(posts(&[1], &[(1, 1), (2, 1)], Some(0)), [PASS, PASS]);
}

#[test]
fn a_post_carried_out_twice_or_promised_in_vain_fails() {
    assert_eq!(posts(&[1], &[(1, 2)], Some(0)), [FAIL, PASS]);
    assert_eq!(posts(&[1, 2], &[(1, 1)], Some(0)), [PASS, FAIL]);
    assert_eq!(posts(&[1, 2], &[(1, 1)], None), [PASS, FAIL]);
    // The journal lost one: nobody knows.
    assert_eq!(posts(&[1, 2], &[(1, 1)], Some(1)), [PASS, Verdict::NotJudged]);
}

fn life(pid: u32, from: u64, sizes: &[u64]) -> Vec<Memory> {
    let sample = |(index, mib): (usize, &u64)| Memory {
        at: Duration::from_secs(from + 60 * index as u64),
        pid,
        resident_kib: mib * 1024,
    };
    sizes.iter().enumerate().map(sample).collect()
}

#[test]
fn memory_is_judged_by_the_process_that_lived_longest() {
    let flat = [life(1, 0, &[10, 90]), life(2, 200, &[10, 20, 20, 21, 22, 21])].concat();
    assert_eq!(memory(&flat).verdict, PASS);
    let growing = [life(1, 0, &[10, 10]), life(2, 200, &[10, 20, 20, 30, 40, 50])].concat();
    assert_eq!(memory(&growing).verdict, FAIL);
    assert_eq!(memory(&[]).verdict, Verdict::NotJudged);
    assert_eq!(memory(&life(1, 0, &[10, 20, 90])).verdict, Verdict::NotJudged);
}

fn fault(kind: Kind, outcome: Outcome) -> Fault {
    let at = Duration::ZERO;
    Fault { at, kind, seats: vec![1], victims: Vec::new(), struck: at, ended: None, outcome }
}

#[test]
fn hangs_are_judged_only_where_a_replacement_is_promised() {
    let left = [fault(Kind::Hang, Outcome::NotReplaced)];
    assert_eq!(hangs(&left, true).verdict, FAIL);
    assert_eq!(hangs(&left, false).verdict, Verdict::NotJudged);
    assert_eq!(hangs(&[fault(Kind::Hang, Outcome::Replaced)], true).verdict, PASS);
    assert_eq!(hangs(&[], true).verdict, Verdict::NotJudged);
}

#[test]
fn a_fault_that_is_not_over_is_told_by_its_number() {
    let faults = [fault(Kind::Kill, Outcome::Replaced), fault(Kind::Stop, Outcome::Open)];
    let check = carried_out(&faults, 3);
    assert_eq!(check.verdict, FAIL);
    assert!(check.detail.ends_with("2 (stop): not over"), "{}", check.detail);
    assert_eq!(carried_out(&faults[..1], 0).verdict, PASS);
}

#[test]
fn what_is_left_behind_fails() {
    assert_eq!(Ending { complaint: None, left: 0 }.check().verdict, PASS);
    assert_eq!(Ending { complaint: None, left: 1 }.check().verdict, FAIL);
    let complaint = Some("exit code 1".to_owned());
    assert_eq!(Ending { complaint, left: 0 }.check().verdict, FAIL);
}
