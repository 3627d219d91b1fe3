//! Looking at everybody at once, and telling what changed.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    requests::Ending,
    role::{Pair, Role},
    scene::Scene,
    stage::VIP,
    style,
    timeline::{Actor, Timeline},
};
use crate::{
    frame::{ArpOperation, Frame},
    http::Fetch,
    keepalived::State,
    poll_until,
};

/// Two looks are so far apart: vipctl is a process each time.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A time between two changes of the VIP's owner.
#[derive(Clone, Debug)]
pub(super) struct Spell {
    /// When it began.
    pub(super) since: Instant,
    /// Its number.
    pub(super) epoch: u64,
    /// The port that owns the VIP; None: nobody does.
    pub(super) owner: Option<String>,
    /// How vipd knows.
    pub(super) learned_from: String,
}

/// The demo's eyes: what was seen so far, so that only news are told.
#[derive(Debug)]
pub(super) struct Watch {
    /// Where news go.
    pub(super) timeline: Timeline,
    looked: Option<Instant>,
    /// States of each keepalived that were told.
    transitions: Pair<usize>,
    /// Announcements of each guest that were looked at.
    claims: Pair<usize>,
    /// Who announced last.
    claimant: Option<Role>,
    /// Who owned the VIP when, as vipctl tells it, oldest first.
    spells: Vec<Spell>,
    /// Requests that were looked at.
    fetches: usize,
    /// How the last request ended.
    ending: Option<Ending>,
    /// Requests in a row that ended like that.
    run: usize,
}

impl Watch {
    /// Nothing was seen yet, and the time begins.
    pub(super) fn start() -> Self {
        Self {
            timeline: Timeline::start(),
            looked: None,
            transitions: Pair::default(),
            claims: Pair::default(),
            claimant: None,
            spells: Vec::new(),
            fetches: 0,
            ending: None,
            run: 0,
        }
    }

    /// Who owned the VIP when, oldest first.
    pub(super) fn spells(&self) -> &[Spell] {
        &self.spells
    }

    /// Whether a guest owns the VIP.
    pub(super) fn is_owned_by(&self, role: Role) -> bool {
        self.spells.last().is_some_and(|spell| spell.owner.as_deref() == Some(role.name()))
    }

    /// Whether a guest owns the VIP and the last page came from it.
    pub(super) fn is_served_by(&self, role: Role) -> bool {
        self.is_owned_by(role)
            && self.ending.as_ref().is_some_and(|ending| *ending == Ending::Page(role.name().to_owned()))
    }

    /// Looks, and tells, until `done`; `what` names it in the error.
    pub(super) fn wait(
        &mut self,
        scene: &Scene<'_>,
        limit: Duration,
        what: &str,
        done: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        // The inner error is one of looking: it ends the wait at once.
        poll_until(limit, what, || match self.look(scene) {
            Ok(()) => done(self).then_some(Ok(())),
            Err(error) => Some(Err(error)),
        })?
    }

    /// Looks, and tells, until the guest that serves now has sent `pages` in a row.
    pub(super) fn wait_for_pages(&mut self, scene: &Scene<'_>, limit: Duration, pages: usize) -> Result<()> {
        let what = format!("{pages} pages in a row");
        self.wait(scene, limit, &what, |watch| {
            watch.run >= pages && matches!(watch.ending, Some(Ending::Page(_)))
        })
    }

    fn look(&mut self, scene: &Scene<'_>) -> Result<()> {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL) {
            self.looked = Some(Instant::now());
            for role in Role::ALL {
                self.look_at_keepalived(scene, role);
                self.look_at_claims(scene, role)?;
            }
            self.look_at_moves(scene)?;
            self.look_at_pages(scene);
        }
        self.timeline.tell();
        Ok(())
    }

    fn look_at_keepalived(&mut self, scene: &Scene<'_>, role: Role) {
        let transitions = scene.transitions(role);
        let told = self.transitions.of_mut(role);
        for (state, at) in transitions.get(*told..).unwrap_or_default() {
            let state = match state {
                State::Master => "MASTER",
                State::Backup => "BACKUP",
                State::Fault => "FAULT",
            };
            self.timeline.note(*at, Actor::Keepalived, &format!("{} becomes {state}", role.name()));
        }
        *told = transitions.len();
    }

    /// Only the first announcement after one of the other guest is news: keepalived repeats itself.
    fn look_at_claims(&mut self, scene: &Scene<'_>, role: Role) -> Result<()> {
        let claims = scene.claims(role)?;
        let looked_at = self.claims.of_mut(role);
        let new = claims.get(*looked_at..).unwrap_or_default().first();
        *looked_at = claims.len();
        if let Some(claim) = new.filter(|_| self.claimant != Some(role)) {
            self.claimant = Some(role);
            let text = format!("{} sends a {}: \"{VIP} is mine\"", role.name(), kind(claim));
            self.timeline.note(claim.at, Actor::Guest, &text);
        }
        Ok(())
    }

    fn look_at_moves(&mut self, scene: &Scene<'_>) -> Result<()> {
        for change in scene.history()? {
            let epoch = change.get("epoch").and_then(Value::as_u64).context("a move without epoch")?;
            if self.spells.last().is_some_and(|last| epoch <= last.epoch) {
                continue;
            }
            let text = |name: &str| change.get(name).and_then(Value::as_str);
            let since = text("at").map_or_else(Instant::now, instant);
            let owner = text("port").map(str::to_owned);
            let learned_from = text("learned_from").unwrap_or("?").to_owned();
            let (to, from) = (text("port").unwrap_or("nobody"), text("previous").unwrap_or("nobody"));
            let told =
                format!("the VIP goes from {from} to {to}: epoch {epoch}, learned from {learned_from}");
            self.timeline.note(since, Actor::Vipd, &told);
            self.spells.push(Spell { since, epoch, owner, learned_from });
        }
        Ok(())
    }

    fn look_at_pages(&mut self, scene: &Scene<'_>) {
        let fetches = scene.fetches();
        for fetch in fetches.get(self.fetches..).unwrap_or_default() {
            let ending = Ending::of(fetch);
            if self.ending.as_ref() == Some(&ending) {
                self.run += 1;
            } else {
                let text = change(self.ending.as_ref(), self.run, &ending);
                self.timeline.note(ended(fetch), Actor::Client, &text);
                (self.ending, self.run) = (Some(ending), 1);
            }
        }
        self.fetches = fetches.len();
    }
}

fn ended(fetch: &Fetch) -> Instant {
    fetch.at + fetch.latency
}

fn kind(claim: &Frame) -> &'static str {
    match claim.arp().map(|arp| arp.operation) {
        Some(ArpOperation::REPLY) => "gratuitous ARP reply",
        _ => "gratuitous ARP request",
    }
}

/// What to say when requests end in another way than before.
fn change(before: Option<&Ending>, run: usize, now: &Ending) -> String {
    let text = match now {
        Ending::Page(guest) => format!("the page comes from {guest}"),
        Ending::Refused => "the connection is refused".to_owned(),
        Ending::Unanswered => "no answer".to_owned(),
    };
    match before {
        None => text,
        Some(Ending::Page(guest)) => format!("{text}, after {} from {guest}", style::count(run, "page")),
        Some(Ending::Refused | Ending::Unanswered) => {
            format!("{text}, after {} without a page", style::count(run, "request"))
        }
    }
}

/// The moment of a time of the recent past that vipd tells, cut to milliseconds: its last microsecond, since the first
/// may lie before the cause.
fn instant(rfc3339: &str) -> Instant {
    let now = Instant::now();
    let age =
        humantime::parse_rfc3339(rfc3339).ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    let first = age.and_then(|age| now.checked_sub(age));
    first.map_or(now, |first| first + Duration::from_micros(999))
}
