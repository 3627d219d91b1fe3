//! What became of the client's requests.

use std::{collections::BTreeMap, ops::RangeBounds, time::Instant};

use crate::http::Fetch;

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    /// The page came; the page says which guest sent it.
    Page(String),
    /// Somebody with the address had nobody at the port, or hung up.
    Refused,
    /// Nobody answered in time, or not with the page.
    Unanswered,
}

impl Ending {
    /// How a request ended.
    pub(super) fn of(fetch: &Fetch) -> Self {
        match &fetch.outcome {
            Ok(page) if page.status == 200 => Self::Page(page.body.trim().to_owned()),
            Err(error) if error.0.contains("refused") || error.0.contains("reset") => Self::Refused,
            Ok(_) | Err(_) => Self::Unanswered,
        }
    }
}

/// Requests by their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    /// Pages by guest.
    pub(super) pages: BTreeMap<String, usize>,
    /// See [`Ending::Refused`].
    pub(super) refused: usize,
    /// See [`Ending::Unanswered`].
    pub(super) unanswered: usize,
}

impl Requests {
    /// Counts the requests that began in a time.
    pub(super) fn within(fetches: &[Fetch], time: impl RangeBounds<Instant>) -> Self {
        let mut requests = Self::default();
        for fetch in fetches.iter().filter(|fetch| time.contains(&fetch.at)) {
            match Ending::of(fetch) {
                Ending::Page(guest) => *requests.pages.entry(guest).or_default() += 1,
                Ending::Refused => requests.refused += 1,
                Ending::Unanswered => requests.unanswered += 1,
            }
        }
        requests
    }

    /// Pages of all guests.
    pub(super) fn answered(&self) -> usize {
        self.pages.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::{FetchError, Page};

    fn fetch(at: Instant, outcome: Result<&str, &str>) -> Fetch {
        let outcome = match outcome {
            Ok(body) => Ok(Page { status: 200, body: body.to_owned() }),
            Err(error) => Err(FetchError(error.to_owned())),
        };
        Fetch { at, latency: Duration::ZERO, outcome }
    }

    #[test]
    fn requests_are_counted_by_guest_and_by_how_they_failed() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let fetches = [
            fetch(start, Ok("a\n")),
            fetch(later, Ok("a\n")),
            fetch(later, Ok("b\n")),
            fetch(later, Err("cannot connect: Connection refused (os error 111)")),
            fetch(later, Err("cannot connect: connection timed out")),
        ];
        let all = Requests::within(&fetches, ..);
        assert_eq!((all.answered(), all.refused, all.unanswered), (3, 1, 1));
        assert_eq!(all.pages.get("a"), Some(&2));
        assert_eq!(Requests::within(&fetches, later..).answered(), 2);
    }

    #[test]
    fn a_page_of_an_error_is_no_answer() {
        let page = Page { status: 404, body: "a".to_owned() };
        let fetch = Fetch { at: Instant::now(), latency: Duration::ZERO, outcome: Ok(page) };
        assert_eq!(Ending::of(&fetch), Ending::Unanswered);
    }
}
