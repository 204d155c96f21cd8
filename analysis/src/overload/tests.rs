use std::fs;
use std::path::PathBuf;

use actix_web::rt;

use super::*;
use crate::report::Report;
use crate::system::Runtime;

/// Short runs of few replicas: only words and places are looked at.
fn study(name: &'static str, arms: &[Arm], loads: &[f64]) -> Study {
    let window = Window { warm_up: Duration::from_secs(1), counted: Duration::from_secs(2) };
    let system = System { window, replicas: 3, ..small(&Plan::default()) };
    let study = Study::new(name, system, Keys::Uniform, arms, loads);
    rt::System::new().block_on(study.run(1)).unwrap()
}

fn setup(folder: &tempfile::TempDir) -> Setup {
    Setup {
        report: Report::open(folder.path()).unwrap(),
        runtime: Runtime::Process,
        image: String::new(),
        balancer: PathBuf::from("/somewhere/release/balancer"),
        requests: 1,
        seed: 1,
    }
}

#[test]
fn a_study_has_every_arm_at_every_load_and_its_problems_by_name() {
    let mut study = study("fleet", &[Arm::HASH, Arm::TIGHT], &[0.5, 0.9]);
    assert_eq!((study.arms(), study.loads()), (vec![Arm::HASH, Arm::TIGHT], vec![0.5, 0.9]));
    assert_eq!(study.problems(), Problems::new());
    // 3 s of 2.8 times what three replicas can do in one.
    assert_eq!(study.requests(), 1_292);
    assert!(study.at(Arm::TIGHT, 0.9).unwrap().requests > 200);
    assert_eq!(study.at(Arm::LOOSE, 0.9), None);
    study.points[3].outcome.problems.push("a request is lost".to_owned());
    assert_eq!(study.problems(), ["fleet, 90 %: a request is lost"]);
}

#[test]
fn simulated_runs_of_the_same_system_agree_with_it() {
    let real = study("real", &[Arm::HASH, Arm::LEAST_REQUESTS], &[0.7]);
    let checked = rt::System::new().block_on(check::check(&real, 1)).unwrap();
    assert_eq!(checked.len(), 6);
    assert!(check::agreement(&checked) >= check::ENOUGH, "{checked:?}");
}

#[test]
fn the_page_has_what_was_measured_and_what_was_simulated() {
    let folder = tempfile::tempdir().unwrap();
    let (setup, plan) = (setup(&folder), Plan::default());
    let names = ["long", "weak", "zipf", "defaults-slow", "defaults-fast"];
    let cases = names.map(|name| study(name, &[Arm::HASH], &[WEAK_LOAD, SHOWN]));
    let fleet = study("fleet", &Arm::ALL, &LOADS);
    let real = study("real", &Arm::ALL, &[SHOWN, 1.1]);
    let calibration = Calibration { usual: USUAL, slow: USUAL * 20, path: USUAL / 10 };
    let checked = rt::System::new().block_on(check::check(&real, 1)).unwrap();
    let real = Real { calibration, study: real, late: vec![USUAL], checked };
    let page = Page { setup: &setup, plan: &plan, real: Some(&real), fleet: &fleet, cases: &cases };
    page.write().unwrap();

    let text = fs::read_to_string(setup.report.path("overload.md")).unwrap();
    for expected in [
        "#### 3 real replicas",
        "10 and 200 ms, and 1 ms for the way",
        "| hash bounded 1.25, controller |",
        "Simulation and reality agree:",
        "#### The same for a minute",
        "#### Hot keys",
        "the controller left the minimum",
        "analysis overload --replicas 8 --seconds 5 --fleet 1000 --seed 1 --out report",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let lines = |name: &str| fs::read_to_string(setup.report.path(name)).unwrap().lines().count();
    // 2 loads of 9 arms, 6 of 9, and five times 2 of 1; three figures of each real one.
    assert_eq!((lines("overload.csv"), lines("overload-check.csv")), (1 + 18 + 54 + 10, 1 + 54));
    assert!(lines("overload-queues.csv") > 9 * 2 * 25);
    for chart in ["overload-latency", "overload-queues"] {
        let svg = fs::read_to_string(setup.report.path(&format!("{chart}.svg"))).unwrap();
        assert!(svg.contains("3 replicas, real"), "{chart}");
        assert!(setup.report.path(&format!("{chart}.png")).exists());
    }
}
