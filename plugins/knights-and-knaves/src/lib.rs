//! Knights, who always tell the truth, and knaves, who always lie: who is who?
//!
//! Claims are drawn until exactly one assignment of roles fits all of them, which is found by trying all.

use std::fmt::Write;
use std::ops::RangeInclusive;

use procedural::{Family, Judged, Solution, Split, Stream, Task, quoted};

/// What people are called.
const NAMES: [&str; 32] = [
    "Abel", "Bella", "Clara", "Daniel", "Edith", "Felix", "Greta", "Hugo", "Iris", "Jonas", "Karla", "Leo", "Mira",
    "Noah", "Olga", "Paul", "Quinn", "Rosa", "Simon", "Tilda", "Uma", "Victor", "Wanda", "Xaver", "Yara", "Zeno",
    "Agnes", "Bruno", "Celia", "Dario", "Elena", "Frank",
];

#[derive(serde::Deserialize)]
struct KnightsAndKnaves {}

#[derive(serde::Serialize, serde::Deserialize)]
struct Puzzle {
    people: Vec<String>,
    /// What each of them claims.
    claims: Vec<Claim>,
}

/// That a person, by number, is a knight (or a knave).
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Role(usize, bool);

#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Claim {
    Is(Role),
    And(Role, Role),
    Or(Role, Role),
    If(Role, Role),
    Iff(Role, Role),
}

/// Who is a knight, as a set of bits.
type Knights = u32;

impl Role {
    fn holds(self, knights: Knights) -> bool {
        (knights >> self.0 & 1 == 1) == self.1
    }
}

impl Claim {
    fn holds(self, knights: Knights) -> bool {
        match self {
            Self::Is(a) => a.holds(knights),
            Self::And(a, b) => a.holds(knights) && b.holds(knights),
            Self::Or(a, b) => a.holds(knights) || b.holds(knights),
            Self::If(a, b) => !a.holds(knights) || b.holds(knights),
            Self::Iff(a, b) => a.holds(knights) == b.holds(knights),
        }
    }

    fn roles(self) -> [Role; 2] {
        match self {
            Self::Is(a) => [a, a],
            Self::And(a, b) | Self::Or(a, b) | Self::If(a, b) | Self::Iff(a, b) => [a, b],
        }
    }

    /// A claim of `speaker`. Nobody says of themselves alone what they are: all would be knights.
    fn draw(speaker: usize, people: usize, random: &mut Stream) -> Self {
        let other = |random: &mut Stream, than: usize| (than + 1 + random.index(people - 1)) % people;
        let about = |random: &mut Stream, who: usize| Role(who, random.below(2) == 1);
        let kind = random.below(6);
        if kind == 0 {
            let who = other(random, speaker);
            return Self::Is(about(random, who));
        }
        let first = random.index(people);
        let second = other(random, first);
        let (a, b) = (about(random, first), about(random, second));
        match kind {
            1 | 2 => Self::And(a, b),
            3 => Self::Or(a, b),
            4 => Self::If(a, b),
            _ => Self::Iff(a, b),
        }
    }
}

impl Puzzle {
    /// The first person whose role does not fit to what they claim.
    fn liar_or_not(&self, knights: Knights) -> Option<usize> {
        (0..self.claims.len()).find(|&i| self.claims[i].holds(knights) != Role(i, true).holds(knights))
    }

    fn solutions(&self) -> impl Iterator<Item = Knights> {
        (0..1 << self.people.len()).filter(|knights| self.liar_or_not(*knights).is_none())
    }

    fn said(&self, role: Role, speaker: usize) -> String {
        let kind = if role.1 { "knight" } else { "knave" };
        if role.0 == speaker { format!("I am a {kind}") } else { format!("{} is a {kind}", self.people[role.0]) }
    }

    fn claim(&self, speaker: usize) -> String {
        let said = |role| self.said(role, speaker);
        match self.claims[speaker] {
            Claim::Is(a) => said(a),
            Claim::And(a, b) => format!("{} and {}", said(a), said(b)),
            Claim::Or(a, b) => format!("{} or {}", said(a), said(b)),
            Claim::If(a, b) => format!("If {}, then {}", said(a), said(b)),
            Claim::Iff(a, b) => format!("{} if and only if {}", said(a), said(b)),
        }
    }

    fn roles(&self, knights: Knights) -> String {
        let role = |i: usize| {
            let kind = if Role(i, true).holds(knights) { "knight" } else { "knave" };
            format!("{} is a {kind}", self.people[i])
        };
        (0..self.people.len()).map(role).collect::<Vec<_>>().join(", ")
    }

    /// Reads "NAME is a knight, NAME and NAME are knaves", in any order and with any punctuation.
    fn read(&self, answer: &str) -> Result<Knights, String> {
        let mut roles: Vec<Option<bool>> = vec![None; self.people.len()];
        let names: Vec<String> = self.people.iter().map(|person| person.to_lowercase()).collect();
        let mut named = Vec::new();
        for word in answer.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            let lower = word.to_lowercase();
            let role = match lower.as_str() {
                "knight" | "knights" => true,
                "knave" | "knaves" => false,
                "is" | "are" | "a" | "and" | "both" | "all" | "the" => continue,
                number if number.bytes().all(|b| b.is_ascii_digit()) => continue,
                name => match names.iter().position(|known| known == name) {
                    Some(person) => {
                        named.push(person);
                        continue;
                    }
                    None => return Err(format!("{} is no name and no role", quoted(word))),
                },
            };
            if named.is_empty() {
                return Err(format!("it does not say who is a {lower}"));
            }
            for person in named.drain(..) {
                if roles[person].replace(role).is_some_and(|before| before != role) {
                    return Err(format!("it says of {} that they are both", self.people[person]));
                }
            }
        }
        if let Some(person) = named.first() {
            return Err(format!("it does not say what {} is", self.people[*person]));
        }
        let mut knights = 0;
        for (person, role) in roles.iter().enumerate() {
            let role = role.ok_or_else(|| format!("it does not say what {} is", self.people[person]))?;
            knights |= Knights::from(role) << person;
        }
        Ok(knights)
    }
}

impl Family for KnightsAndKnaves {
    const SCHEMA: &'static str = include_str!("schema.json");
    const LEVELS: RangeInclusive<u32> = 1..=7;
    const PROMPT: &'static str = "On an island everyone is either a knight, who always tells the truth, or a knave, who always \
        lies. You meet {people}.\n{claims}\nWho is a knight, and who is a knave? Think inside <{think}> </{think}> tags, then \
        give everyone's role inside <{answer}> </{answer}> tags, for example <{answer}>{example}</{answer}>.";
    const PLACEHOLDERS: &'static [&'static str] = &["people", "claims", "example"];
    type Puzzle = Puzzle;

    fn draw(&self, level: u32, random: &mut Stream, _: Split) -> Option<Puzzle> {
        let n = level as usize + 1;
        let mut names = NAMES;
        random.shuffle(&mut names);
        let people = names[..n].iter().map(|name| (*name).to_owned()).collect();
        let claims = (0..n).map(|speaker| Claim::draw(speaker, n, random)).collect();
        let puzzle = Puzzle { people, claims };
        (puzzle.solutions().take(2).count() == 1).then_some(puzzle)
    }

    /// What is claimed, whatever people are called.
    fn key(&self, puzzle: &Puzzle) -> String {
        let mut key = String::new();
        for claim in &puzzle.claims {
            let kind = match claim {
                Claim::Is(_) => ' ',
                Claim::And(..) => '&',
                Claim::Or(..) => '|',
                Claim::If(..) => '>',
                Claim::Iff(..) => '=',
            };
            let [a, b] = claim.roles();
            let _ = write!(key, "{kind}{}{}{}{}", a.0, u8::from(a.1), b.0, u8::from(b.1));
        }
        key
    }

    fn words(&self, puzzle: &Puzzle) -> Vec<String> {
        let people = match puzzle.people.as_slice() {
            [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
            people => people.join(""),
        };
        let claims = (0..puzzle.people.len()).map(|i| format!("{} says: \"{}.\"", puzzle.people[i], puzzle.claim(i)));
        // The roles of the example are the same in every prompt: they say nothing.
        let example = puzzle.roles(0b1010_1010_1010_1010);
        vec![people, claims.collect::<Vec<_>>().join("\n"), example]
    }

    fn solve(&self, puzzle: &Puzzle) -> Solution {
        let knights = puzzle.solutions().next().unwrap_or(0);
        let answer = puzzle.roles(knights);
        let mut thought = format!("Suppose {answer}.");
        for (i, person) in puzzle.people.iter().enumerate() {
            let (kind, truth) = if Role(i, true).holds(knights) { ("knight", "true") } else { ("knave", "false") };
            let _ = write!(thought, " {person}, a {kind}, says \"{}\", which is {truth}.", puzzle.claim(i));
        }
        Solution { thought: thought + " All of it fits.", answer }
    }

    fn is_sound(&self, puzzle: &Puzzle) -> bool {
        let n = puzzle.people.len();
        let known = |claim: &Claim| claim.roles().iter().all(|role| role.0 < n);
        (1..=16).contains(&n) && puzzle.claims.len() == n && puzzle.claims.iter().all(known)
    }

    fn judge(&self, puzzle: &Puzzle, answer: &str) -> Judged {
        let knights = match puzzle.read(answer) {
            Ok(knights) => knights,
            Err(why) => return Judged::Malformed(why),
        };
        let canonical = puzzle.roles(knights);
        let Some(person) = puzzle.liar_or_not(knights) else { return Judged::Right(canonical) };
        let name = &puzzle.people[person];
        let (kind, said) = if Role(person, true).holds(knights) { ("knight", "false") } else { ("knave", "true") };
        Judged::Wrong(canonical, format!("{name} would be a {kind}, yet what {name} says would be {said}"))
    }
}

pipeline_plugin::task!(Task<KnightsAndKnaves>);

#[cfg(test)]
mod tests;
