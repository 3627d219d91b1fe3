//! Lines with times, told as things happen.

use std::time::{Duration, Instant};

use anstream::println;
use anstyle::{AnsiColor, Style};

use super::style;

/// News come from several places, each a little late: a line is held back this long, so that lines come out in the
/// order of what they tell.
const HELD_BACK: Duration = Duration::from_millis(400);

/// Who a line is about. The order is that of cause and effect, for lines of the same millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actor {
    /// The demo itself.
    Demo,
    /// One of the two keepalived.
    Keepalived,
    /// What a guest sends.
    Guest,
    /// The forwarder, by vipctl.
    Vipd,
    /// The client outside.
    Client,
}

impl Actor {
    fn word(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Keepalived => "keepalived",
            Self::Guest => "guest",
            Self::Vipd => "vipd",
            Self::Client => "client",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Demo => Style::new().bold(),
            Self::Keepalived => AnsiColor::Magenta.on_default(),
            Self::Guest => AnsiColor::Yellow.on_default(),
            Self::Vipd => AnsiColor::Cyan.on_default().bold(),
            Self::Client => AnsiColor::Green.on_default(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Line {
    at: Instant,
    actor: Actor,
    text: String,
}

/// Tells lines in the order of their times, which count from its start.
#[derive(Debug)]
pub(super) struct Timeline {
    start: Instant,
    held: Vec<Line>,
}

impl Timeline {
    /// It is 0.000 s.
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), held: Vec::new() }
    }

    /// Seconds from the start to a moment.
    pub(super) fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
    }

    /// Something happened at a moment of the recent past.
    pub(super) fn note(&mut self, at: Instant, actor: Actor, text: &str) {
        self.held.push(Line { at, actor, text: text.to_owned() });
    }

    /// Something happens now.
    pub(super) fn say(&mut self, actor: Actor, text: &str) {
        self.note(Instant::now(), actor, text);
    }

    /// Prints the lines that are old enough to have found their place.
    pub(super) fn tell(&mut self) {
        if let Some(until) = Instant::now().checked_sub(HELD_BACK) {
            self.print_until(until);
        }
    }

    /// Prints all lines.
    pub(super) fn flush(&mut self) {
        self.print_until(Instant::now());
    }

    fn print_until(&mut self, until: Instant) {
        for line in take_until(&mut self.held, self.start, until) {
            let Line { at, actor, text } = line;
            let (seconds, style) = (self.seconds(at), actor.style());
            let dim = style::DIM;
            println!("{dim}{seconds:>8.3} s{dim:#}  {style}{:<10}{style:#}  {text}", actor.word());
        }
    }
}

/// Takes out the lines up to a moment, sorted.
fn take_until(held: &mut Vec<Line>, start: Instant, until: Instant) -> Vec<Line> {
    let (mut old, new) = held.drain(..).partition::<Vec<_>, _>(|line| line.at <= until);
    *held = new;
    // vipd tells milliseconds: within one, cause comes before effect.
    old.sort_by_key(|line| (line.at.saturating_duration_since(start).as_millis(), line.actor));
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sorted_by_time_and_within_a_millisecond_by_cause() {
        let start = Instant::now();
        let line =
            |micros, actor| Line { at: start + Duration::from_micros(micros), actor, text: String::new() };
        let mut held = vec![
            line(9000, Actor::Demo),
            line(2100, Actor::Vipd),
            line(2900, Actor::Guest),
            line(1000, Actor::Client),
        ];
        let told = take_until(&mut held, start, start + Duration::from_millis(5));
        let actors: Vec<Actor> = told.iter().map(|line| line.actor).collect();
        assert_eq!(actors, [Actor::Client, Actor::Guest, Actor::Vipd]);
        assert_eq!(held, [line(9000, Actor::Demo)]);
    }
}
