//! Carries the schedule out, one step after the other: what hits replicas is left to
//! [`faults`](super::faults), the rest is done here.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use awc::http::Method;
use tokio::process::Command;

use super::faults::{Outcome, PATIENCE, World};
use super::replicas::Found;
use super::schedule::{Kind, Step};
use crate::system::api::Call;
use crate::system::victim::docker;
use crate::system::{Balancer, Runtime};

/// How the faults are injected that are no replica's.
pub(crate) struct Injector {
    pub(crate) world: Rc<World>,
    pub(crate) balancer: Balancer,
    pub(crate) runtime: Runtime,
    pub(crate) replicas: usize,
    /// Restarts the engine.
    pub(crate) restart_engine: Option<String>,
    /// The command of process replicas, as they are started first.
    pub(crate) command: serde_json::Value,
}

/// How long the balancer's output is not read: its access log fills the pipe in about a second.
const UNREAD: Duration = Duration::from_secs(10);

/// How long a bad release is rolled out until it is corrected.
const CORRECTED_AFTER: Duration = Duration::from_millis(1_500);

// === impl Injector ===

impl Injector {
    /// Does one step; what could not be done is noted.
    pub(crate) async fn inject(&mut self, step: &Step) {
        let done = match step.kind {
            Kind::Balancer => self.crash().await,
            Kind::Engine => self.restart_engine().await,
            Kind::Member => self.join_and_leave(step).await,
            Kind::Unread => {
                self.leave_output_unread();
                Ok(())
            }
            Kind::Rollout => self.roll_out().await,
            Kind::Add | Kind::Shrink => self.resize(step).await,
            Kind::Kill
            | Kind::Hang
            | Kind::HangBriefly
            | Kind::Stop
            | Kind::Remove
            | Kind::ExitLoop
            | Kind::Disconnect => self.world.hit(step).await,
        };
        if let Err(error) = done {
            self.world.note(step.kind, &step.seats, Outcome::Failed(format!("{error:#}")));
        }
    }

    /// A whole fleet first: otherwise nobody could say what the next balancer should find.
    async fn wait_for_a_whole_fleet(&self) -> anyhow::Result<()> {
        let calm = self.world.is_calm_within(PATIENCE).await;
        ensure!(
            calm && self.world.watch.is_full_within(PATIENCE).await,
            "the fleet is not whole after {PATIENCE:?}"
        );
        Ok(())
    }

    async fn crash(&mut self) -> anyhow::Result<()> {
        self.wait_for_a_whole_fleet().await?;
        let world = Rc::clone(&self.world);
        let index = world.note(Kind::Balancer, &[], Outcome::Open);
        let from = world.watch.now();
        let crashed = self.balancer.crash().await;
        if self.runtime == Runtime::Process {
            world.watch.ask(self.replicas);
        }
        if let Ok(pid) = self.balancer.pid() {
            world.watch.follow(pid);
        }
        self.recover(index, from, true).await;
        crashed
    }

    async fn restart_engine(&mut self) -> anyhow::Result<()> {
        let command = self.restart_engine.clone().context("no command restarts the engine")?;
        self.wait_for_a_whole_fleet().await?;
        let keeps = docker(&["info", "-f", "{{.LiveRestoreEnabled}}"]).await?;
        let index = self.world.note(Kind::Engine, &[], Outcome::Open);
        let from = self.world.watch.now();
        let status = Command::new("sh").args(["-c", &command]).kill_on_drop(true).status().await;
        // Where containers outlive the engine, no request may fail.
        self.recover(index, from, keeps != "true").await;
        ensure!(status?.success(), "`{command}` failed");
        Ok(())
    }

    /// Starts a second balancer of the pool, and stops it again. No request may fail, and no
    /// replica may come or go because of it: nothing of that is excused.
    async fn join_and_leave(&self, step: &Step) -> anyhow::Result<()> {
        self.wait_for_a_whole_fleet().await?;
        let (world, before) = (&self.world, self.world.all().await?);
        let index = world.note(Kind::Member, &[], Outcome::Open);
        let outcome = match self.second_member(step, before).await {
            Ok(()) => Outcome::Undone,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        world.end(index, outcome);
        Ok(())
    }

    async fn second_member(&self, step: &Step, before: Vec<Found>) -> anyhow::Result<()> {
        let second = self.balancer.launch_beside()?;
        let listed = second.wait_for_replicas(self.world.watch.asked(), PATIENCE).await;
        tokio::time::sleep(step.lasts).await;
        second.stop().await.context("the second balancer did not stop well")?;
        listed?;
        ensure!(self.world.watch.is_full_within(PATIENCE).await, "the fleet is not whole after it");
        let handles = |all: &[Found]| {
            let mut handles: Vec<String> =
                all.iter().map(|found| format!("{:?}", found.handle)).collect();
            handles.sort();
            handles
        };
        let after = self.world.all().await?;
        ensure!(handles(&before) == handles(&after), "replicas changed: {before:?} {after:?}");
        Ok(())
    }

    /// Reads nothing of the balancer's output for a while, in which the next faults come.
    fn leave_output_unread(&self) {
        let index = self.world.note(Kind::Unread, &[], Outcome::Open);
        let (world, output) = (Rc::clone(&self.world), self.balancer.output());
        output.read(false);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(UNREAD).await;
            output.read(true);
            world.end(index, Outcome::Done);
        });
    }

    /// Waits until all is well again.
    async fn recover(&self, index: usize, from: Duration, excused: bool) {
        let full = self.world.watch.is_full_within(2 * PATIENCE).await;
        if excused {
            self.world.excused.borrow_mut().push((from, self.world.watch.now()));
        }
        let outcome = if full {
            Outcome::Done
        } else {
            Outcome::Failed(format!("not whole after {:?}", 2 * PATIENCE))
        };
        self.world.end(index, outcome);
    }

    /// Rolls out a release that does not work, and corrects it by another rollout. No request may
    /// fail meanwhile.
    async fn roll_out(&mut self) -> anyhow::Result<()> {
        self.wait_for_a_whole_fleet().await?;
        let index = self.world.note(Kind::Rollout, &[], Outcome::Open);
        let (bad, good) = match self.runtime {
            // Never ready: it is corrected while it is under way.
            Runtime::Process => (serde_json::json!(["/bin/sleep", "600"]), self.command.clone()),
            // Ends at once: it is rolled back by itself, perhaps before it is corrected.
            Runtime::Docker => {
                (serde_json::json!(["--no-such-flag"]), serde_json::json!(["--workers", "1"]))
            }
        };
        let corrected = async {
            self.begin_rollout(&bad).await?;
            tokio::time::sleep(CORRECTED_AFTER).await;
            self.begin_rollout(&good).await?;
            self.rollout_is_done_within(2 * PATIENCE).await
        };
        match corrected.await {
            Ok(()) => self.recover(index, self.world.watch.now(), false).await,
            Err(error) => self.world.end(index, Outcome::Failed(format!("{error:#}"))),
        }
        Ok(())
    }

    async fn begin_rollout(&self, command: &serde_json::Value) -> anyhow::Result<()> {
        let body = serde_json::json!({ "command": command }).to_string();
        let call = Call::json(Method::POST, "/admin/roll", &body);
        let answer = tokio::time::timeout(PATIENCE, self.balancer.api().call(&call)).await??;
        ensure!(answer.status == 202, "rollout: status {}: {}", answer.status, answer.text());
        Ok(())
    }

    async fn rollout_is_done_within(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = self.world.watch.now() + patience;
        loop {
            let call = Call::new(Method::GET, "/admin/roll");
            let answer = tokio::time::timeout(PATIENCE, self.balancer.api().call(&call)).await??;
            let message = answer.envelope()?.message;
            match message["state"].as_str() {
                Some("done") => return Ok(()),
                Some("rolling") if self.world.watch.now() < deadline => {}
                _ => bail!("the correcting rollout: {message}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// `/add` or `/rm` of one. What is asked for changes when it is granted.
    async fn resize(&self, step: &Step) -> anyhow::Result<()> {
        let (world, asked) = (&self.world, self.world.watch.asked());
        let (call, then, victims) = match step.seats.first() {
            None => (Call::json(Method::POST, "/add", r#"{"n":1}"#), asked + 1, Vec::new()),
            Some(seat) => {
                let last = world.listed(*seat).await?;
                let name = last.hostname.context("the name of the last replica is not known")?;
                let body = serde_json::json!({ "n": 1, "hostnames": [name] }).to_string();
                (Call::json(Method::DELETE, "/rm", &body), asked - 1, vec![name])
            }
        };
        let index = world.note(step.kind, &step.seats, Outcome::Open);
        world.faults.borrow_mut()[index].victims = victims;
        let answer = tokio::time::timeout(PATIENCE, self.balancer.api().call(&call)).await;
        let Ok(Ok(answer)) = answer else {
            world.end(index, Outcome::Failed("no answer".to_owned()));
            bail!("{} {} got no answer: what is asked for is not known", call.method, call.path);
        };
        if answer.status == 200 {
            world.watch.ask(then);
            world.end(index, Outcome::Done);
        } else {
            let refusal = format!("status {}: {}", answer.status, answer.text());
            world.end(index, Outcome::Failed(refusal));
        }
        Ok(())
    }
}
