//! Many samples in few numbers.

use serde::Serialize;

/// What samples say: the middle one, and the outermost ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    /// The median.
    pub(super) median: f64,
    /// The least.
    pub(super) min: f64,
    /// The greatest.
    pub(super) max: f64,
}

impl Spread {
    /// Of samples, in any order; `None` without any.
    pub(super) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut samples: Vec<f64> = samples.into_iter().collect();
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        let upper = *samples.get(middle)?;
        let median = if samples.len().is_multiple_of(2) {
            f64::midpoint(*samples.get(middle - 1)?, upper)
        } else {
            upper
        };
        Some(Self { median, min: *samples.first()?, max: *samples.last()? })
    }

    /// As a table shows it, with so many digits behind the point; one sample has no spread.
    pub(super) fn text(&self, digits: usize) -> String {
        let Self { median, min, max } = self;
        if min >= max {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two_middle_ones() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]).map(|spread| spread.median), Some(2.5));
    }
}
