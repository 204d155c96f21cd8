//! The charts of `analysis overload`.

use balancer::routing::policy::Policy;

use super::arm::Arm;
use super::outcome::Look;
use super::page::percent;
use super::{SHOWN, Study};
use crate::chart::lines::{Line, LineFigure, Panel, Point, Side};
use crate::chart::series::{self, Series, SeriesFigure};
use crate::chart::{Key, Marker, Scale, Sign, Stroke, theme};
use crate::report::thousands;

/// The arms whose queues are drawn: more lines than these nobody can tell apart.
const DRAWN: [Arm; 5] =
    [Arm::ROUND_ROBIN, Arm::ROUND_ROBIN.with_controller(), Arm::HASH, Arm::TIGHT, Arm::TWO_CHOICES];

/// Points of a line of the queues.
const MOST_POINTS: usize = 160;

/// Colour and form by policy, dashes with the controller.
fn look(arm: Arm) -> (Stroke, Marker) {
    let (color, marker) = match (arm.policy, arm.bound) {
        (Policy::RoundRobin, _) => (theme::BLUE, Marker::Circle),
        (Policy::Hash, None) => (theme::VERMILLION, Marker::Square),
        (Policy::Hash, Some(factor)) if factor < 2.0 => (theme::GREEN, Marker::Triangle),
        (Policy::Hash, Some(_)) => (theme::SKY, Marker::Triangle),
        (Policy::TwoChoices, _) => (theme::PURPLE, Marker::Diamond),
        (Policy::LeastRequests, _) => (theme::INK, Marker::Cross),
    };
    let stroke = match arm.controlled {
        true => Stroke::dashed(color, 2, 9.0, 6.0),
        false => Stroke::solid(color, 2),
    };
    (stroke, marker)
}

fn name_of(study: &Study) -> String {
    let how = if study.name == "real" { "real" } else { "simulated" };
    format!("{} replicas, {how}", thousands(u64::from(study.system.replicas)))
}

/// p99 over load.
pub(super) fn latency_figure(studies: &[&Study]) -> LineFigure {
    let key = |arm: Arm| {
        let (stroke, marker) = look(arm);
        Key { name: arm.name(), sign: Sign::Line(stroke, Some(marker)) }
    };
    let loads = studies.first().map(|study| study.loads()).unwrap_or_default();
    let ticks = (0_u32..).zip(loads).map(|(index, load)| (f64::from(index), percent(load)));
    LineFigure {
        title: "Overload: who looks at the queues has short ones".to_owned(),
        subtitle: "p99 of requests that come whether answers do or not; 5 % of them take 20 times \
                   as long as the others"
            .to_owned(),
        keys: Arm::ALL.map(key).to_vec(),
        x_title: "requests, as a share of what the replicas can do".to_owned(),
        x_ticks: ticks.collect(),
        panels: studies.iter().map(|study| latency_panel(study)).collect(),
    }
}

fn latency_panel(study: &Study) -> Panel {
    Panel {
        title: name_of(study),
        y_title: "p99 (ms)".to_owned(),
        y_scale: Scale::Log,
        lines: study.arms().into_iter().map(|arm| latency_line(study, arm)).collect(),
        dots: Vec::new(),
        reference: None,
    }
}

fn latency_line(study: &Study, arm: Arm) -> Line {
    let (stroke, marker) = look(arm);
    let point = |(x, load): (u32, f64)| {
        let y = study.at(arm, load)?.latency.p99.as_secs_f64() * 1e3;
        // Nothing was answered well: there is no place for it.
        (y > 0.0).then(|| Point { x: f64::from(x), y, label: String::new(), side: Side::Above })
    };
    Line { stroke, marker, points: (0..).zip(study.loads()).filter_map(point).collect() }
}

/// The longest queue over time.
pub(super) fn queues_figure(studies: &[&Study]) -> SeriesFigure {
    let key = |arm: Arm| Key { name: arm.name(), sign: Sign::Line(look(arm).0, None) };
    SeriesFigure {
        title: format!("The longest queue at {} of what the replicas can do", percent(SHOWN)),
        subtitle: "requests in flight at the busiest replica, the warm-up is shown, too".to_owned(),
        keys: DRAWN.map(key).to_vec(),
        x_title: "time (s)".to_owned(),
        y_title: "requests in flight".to_owned(),
        y_scale: Scale::Log,
        panels: studies.iter().map(|study| queues_panel(study)).collect(),
    }
}

fn queues_panel(study: &Study) -> series::Panel {
    let line = |arm: Arm| {
        let looks = &study.at(arm, SHOWN)?.looks;
        // What is too near to be told apart comes down to its longest.
        let groups = looks.chunks(looks.len().div_ceil(MOST_POINTS).max(1));
        let point = |group: &[Look]| {
            let longest = group.iter().map(|look| look.longest).max()?;
            // An empty fleet has no place on a logarithmic axis.
            Some((group.first()?.at.as_secs_f64(), longest.max(1) as f64))
        };
        let points = groups.filter_map(point).collect();
        Some(Series { stroke: look(arm).0, points })
    };
    series::Panel { title: name_of(study), lines: DRAWN.into_iter().filter_map(line).collect() }
}
