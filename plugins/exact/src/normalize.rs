//! What is taken away from an answer and from a reference before they are compared.

/// One thing that does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// White space around the text.
    Trim,
    /// Upper and lower case.
    Case,
    /// ASCII punctuation.
    Punctuation,
    /// The words a, an, the.
    Articles,
    /// How much and which white space stands between words; none around the text.
    Whitespace,
    /// All characters but letters and digits.
    Alphanumeric,
}

/// The steps of a config: a list, or the name of a known one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(from = "Written")]
pub struct Steps(Vec<Step>);

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Written {
    Known(Known),
    List(Vec<Step>),
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Known {
    /// The exact match of SQuAD, TriviaQA and Search-R1.
    Squad,
    /// NeMo RL's `exact_answer_alphanumeric_reward`.
    Alphanumeric,
}

impl From<Written> for Steps {
    fn from(written: Written) -> Self {
        Self(match written {
            Written::List(steps) => steps,
            Written::Known(Known::Squad) => vec![Step::Case, Step::Punctuation, Step::Articles, Step::Whitespace],
            Written::Known(Known::Alphanumeric) => vec![Step::Alphanumeric, Step::Case],
        })
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self(vec![Step::Trim])
    }
}

/// The text after all steps. They are taken in the order of [`Step`], whatever the order in the config.
pub fn normalize(text: &str, steps: &Steps) -> String {
    let has = |step| steps.0.contains(&step);
    let mut text = if has(Step::Trim) { text.trim().to_owned() } else { text.to_owned() };
    if has(Step::Case) {
        text = text.to_lowercase();
    }
    if has(Step::Punctuation) {
        text.retain(|c| !c.is_ascii_punctuation());
    }
    if has(Step::Articles) {
        text = without_articles(&text);
    }
    if has(Step::Whitespace) {
        text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if has(Step::Alphanumeric) {
        text.retain(char::is_alphanumeric);
    }
    text
}

/// The text with a space in the place of each article, as `\b(a|an|the)\b` finds them.
fn without_articles(text: &str) -> String {
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut left = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let is_article = ["a", "an", "the"].iter().any(|article| article.eq_ignore_ascii_case(word));
        left += if is_article { " " } else { word };
        let end = behind.find(is_of_word).unwrap_or(behind.len());
        left += &behind[..end];
        rest = &behind[end..];
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(steps: &[Step], text: &str, expected: &str) {
        assert_eq!(normalize(text, &Steps(steps.to_vec())), expected, "{steps:?} of {text:?}");
    }

    #[test]
    fn steps_take_away_what_they_say() {
        check(&[], " A b ", " A b ");
        check(&[Step::Trim], " A  b\n", "A  b");
        check(&[Step::Whitespace], " A  b\n", "A b");
        check(&[Step::Case], "ÀB", "àb");
        check(&[Step::Punctuation], "a-b_c! “d”", "abc “d”");
        check(&[Step::Articles, Step::Whitespace], "The a-an banana, a1 the_", "- banana, a1 the_");
        check(&[Step::Alphanumeric], "Hello-123! é½", "Hello123é½");
    }

    #[test]
    fn known_lists_are_what_their_sources_do() {
        let squad = Steps::from(Written::Known(Known::Squad));
        assert_eq!(normalize(" The  Emmanuel-Macron! ", &squad), "emmanuelmacron");
        assert_eq!(normalize("An answer, a day", &squad), "answer day");
        let alphanumeric = Steps::from(Written::Known(Known::Alphanumeric));
        assert_eq!(normalize(" HELLO-123 ", &alphanumeric), "hello123");
    }
}
