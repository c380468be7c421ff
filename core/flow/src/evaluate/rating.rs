//! A rating from solved problems, as on Codeforces: how strong is whoever solves these and not those?

use std::path::Path;

/// Attempts at a problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Attempts {
    /// The problem's rating.
    pub problem: f64,
    pub tried: usize,
    pub solved: usize,
}

/// The likeliest rating.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rating {
    pub rating: f64,
    /// Why `rating` is only a bound, if it is one.
    pub bound: Option<Bound>,
}

/// Why there is no likeliest rating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Every attempt succeeded: the higher the rating, the likelier.
    AtLeast,
    /// None did.
    AtMost,
}

/// The probability that someone solves a problem, by Elo's logistic curve as Codeforces uses it: at equal ratings one half,
/// 400 points more are ten to one ("Codeforces: problem difficulties", 2018; Elo, "The rating of chessplayers", 1978).
fn solves(problem: f64, rating: f64) -> f64 {
    1.0 / (1.0 + libm::exp10((problem - rating) / 400.0))
}

/// The rating that makes the attempts likeliest: where as many are expected to succeed as did, which is where the
/// derivative of the log-likelihood is 0. It is found to a ten-thousandth of a point by bisection.
///
/// If all or none succeeded, no rating is likeliest; what is given then is the rating at which half an attempt less, or half
/// an attempt, would be expected to succeed, as a bound.
///
/// `None` if nothing was tried.
pub(crate) fn likeliest(attempts: &[Attempts]) -> Option<Rating> {
    let tried = attempts.iter().map(|one| one.tried).sum::<usize>() as f64;
    let solved = attempts.iter().map(|one| one.solved).sum::<usize>() as f64;
    if tried == 0.0 {
        return None;
    }
    let (wanted, bound) = match solved {
        0.0 => (0.5, Some(Bound::AtMost)),
        all if all == tried => (tried - 0.5, Some(Bound::AtLeast)),
        some => (some, None),
    };
    let expected =
        |rating: f64| -> f64 { attempts.iter().map(|one| one.tried as f64 * solves(one.problem, rating)).sum() };
    let problems = || attempts.iter().filter(|one| one.tried > 0).map(|one| one.problem);
    // Beyond the problems by what makes even one attempt in 10^10 expected to succeed or fail.
    let mut low = problems().fold(f64::INFINITY, f64::min) - 4000.0;
    let mut high = problems().fold(f64::NEG_INFINITY, f64::max) + 4000.0;
    while high - low > 1e-4 {
        let middle = low + (high - low) / 2.0;
        if expected(middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(Rating { rating: low + (high - low) / 2.0, bound })
}

/// The ratings of others, each with how many or which share of them have it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Others(Vec<(f64, f64)>);

impl Others {
    /// Reads a CSV file: a rating a line, or a rating and how many have it, as a count or a share. A first line of words is
    /// a header.
    ///
    /// # Errors
    /// What is wrong, with the file and the line.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|(line, what)| match line {
            0 => format!("{}: {what}", path.display()),
            line => format!("{}:{line}: {what}", path.display()),
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut others = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let mut cells = line.trim_start_matches('\u{feff}').split(',').map(str::trim);
            let (first, second, more) = (cells.next().unwrap_or_default(), cells.next(), cells.next());
            let header = number == 0 && first.starts_with(|letter: char| letter.is_alphabetic());
            if header {
                continue;
            }
            let read = |cell: &str| cell.parse::<f64>().ok().filter(|number| number.is_finite());
            let wrong = |what: String| (number + 1, what);
            let rating = read(first).ok_or_else(|| wrong(format!("`{first}` is no rating")))?;
            let share = match second {
                None => 1.0,
                Some(cell) => read(cell)
                    .filter(|share| *share >= 0.0)
                    .ok_or_else(|| wrong(format!("`{cell}` is no count and no share")))?,
            };
            if more.is_some() {
                return Err(wrong("a line is `RATING` or `RATING,SHARE`".to_owned()));
            }
            others.push((rating, share));
        }
        if others.iter().map(|(_, share)| share).sum::<f64>() <= 0.0 {
            return Err((0, "there are no ratings in it".to_owned()));
        }
        Ok(Self(others))
    }

    /// Which share of the others has a lower rating, in percent.
    pub fn percentile(&self, rating: f64) -> f64 {
        let all: f64 = self.0.iter().map(|(_, share)| share).sum();
        let below: f64 = self.0.iter().filter(|(other, _)| *other < rating).map(|(_, share)| share).sum();
        // A sum of nothing is -0.0.
        100.0 * (below / all).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(list: &[(f64, usize, usize)]) -> Option<Rating> {
        let attempts: Vec<_> =
            list.iter().map(|&(problem, tried, solved)| Attempts { problem, tried, solved }).collect();
        likeliest(&attempts)
    }

    fn rating(list: &[(f64, usize, usize)]) -> f64 {
        let Rating { rating, bound } = tried(list).unwrap();
        assert_eq!(bound, None);
        rating
    }

    #[test]
    fn the_likeliest_rating_is_where_as_much_is_expected_as_was_solved() {
        assert!((rating(&[(1500.0, 2, 1)]) - 1500.0).abs() < 1e-3);
        // Ten to one is 400 points.
        assert!((rating(&[(1500.0, 11, 10)]) - 1900.0).abs() < 1e-3);
        assert!((rating(&[(1500.0, 11, 1)]) - 1100.0).abs() < 1e-3);
        // Symmetric about 1,400.
        assert!((rating(&[(1000.0, 4, 3), (1400.0, 4, 2), (1800.0, 4, 1)]) - 1400.0).abs() < 1e-3);
        // No grid point has a greater likelihood.
        let list = [(800.0, 4, 4), (1200.0, 8, 5), (1900.0, 8, 2), (2600.0, 4, 0)];
        let likelihood = |rating: f64| -> f64 {
            let one = |&(problem, tried, solved): &(f64, usize, usize)| {
                let p = solves(problem, rating);
                solved as f64 * libm::log(p) + (tried - solved) as f64 * libm::log(1.0 - p)
            };
            list.iter().map(one).sum()
        };
        let best = rating(&list);
        assert!((0..4000).all(|other| likelihood(best) >= likelihood(f64::from(other))), "{best}");
    }

    #[test]
    fn all_or_nothing_has_a_bound_and_no_maximum() {
        let all = tried(&[(1500.0, 1, 1)]).unwrap();
        assert_eq!(all.bound, Some(Bound::AtLeast));
        assert!((all.rating - 1500.0).abs() < 1e-3, "half an attempt of one is even odds");
        let none = tried(&[(1500.0, 8, 0), (2000.0, 0, 0)]).unwrap();
        assert_eq!(none.bound, Some(Bound::AtMost));
        assert!((none.rating - (1500.0 - 400.0 * libm::log10(15.0))).abs() < 1e-3, "{}", none.rating);
        assert_eq!(tried(&[]), None);
        assert_eq!(tried(&[(1500.0, 0, 0)]), None);
    }

    #[test]
    fn a_percentile_is_the_share_below() {
        let others = Others::parse("rating\n1000\n1200\n1200\n1500\n").unwrap();
        assert_eq!(
            [900.0, 1000.0, 1200.0, 1200.5, 9000.0].map(|rating| others.percentile(rating)),
            [0.0, 0.0, 25.0, 75.0, 100.0]
        );
        let others = Others::parse("\u{feff}1000, 0.5\n\n1200,0.3\n1500,0.2").unwrap();
        assert!((others.percentile(1300.0) - 80.0).abs() < 1e-12);
    }

    #[test]
    fn a_table_that_is_none_is_shown_by_line() {
        let wrong = |text: &str| Others::parse(text).unwrap_err();
        assert_eq!(wrong("rating,share\n1000,0.5\nx,1"), (3, "`x` is no rating".to_owned()));
        assert_eq!(wrong("1000,-1"), (1, "`-1` is no count and no share".to_owned()));
        assert_eq!(wrong("1000,1,2").0, 1);
        assert_eq!(wrong("1000\nNaN").0, 2);
        for empty in ["", "rating\n", "1000,0"] {
            assert_eq!(wrong(empty), (0, "there are no ratings in it".to_owned()));
        }
    }
}
