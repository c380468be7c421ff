//! Canonical text of an answer: equal answers of one kind have the same, and it parses to itself.

use crate::canonical::{Canonical, name_text};
use crate::numeric;
use crate::parser::is_name;
use crate::tree::{NamedSet, Node, Relation, SetOperation};

/// Bytes at most; what is longer has no canonical text.
const LONGEST: usize = 2000;

/// The canonical text; `None` for what has none.
pub fn print(node: &Node) -> Option<String> {
    let text = printed(node)?;
    (text.len() <= LONGEST).then_some(text)
}

fn printed(node: &Node) -> Option<String> {
    Some(match node {
        Node::Percent(inner) => {
            let inside = printed(inner)?;
            let is_plain = inside.bytes().all(|byte| byte.is_ascii_digit());
            if is_plain { format!("{inside}\\%") } else { format!("({inside})\\%") }
        }
        Node::Based { digits, base } => format!("{digits}_{base}"),
        Node::Symbol(name) => name_text(name),
        Node::Set(nodes) => {
            let mut elements: Vec<(Option<f64>, String)> =
                nodes.iter().map(|node| Some((numeric::real(node), printed(node)?))).collect::<Option<_>>()?;
            elements.sort_by(|a, b| {
                let by_value = match (a.0, b.0) {
                    (Some(x), Some(y)) => x.total_cmp(&y),
                    (x, y) => y.is_some().cmp(&x.is_some()),
                };
                by_value.then_with(|| a.1.cmp(&b.1))
            });
            elements.dedup_by(|a, b| a.1 == b.1);
            let texts: Vec<String> = elements.into_iter().map(|(_, text)| text).collect();
            if texts.is_empty() {
                "\\emptyset".into()
            } else if let [only] = &texts[..] {
                only.clone()
            } else {
                format!("\\{{{}\\}}", texts.join(", "))
            }
        }
        Node::Tuple(nodes) => format!("({})", list(nodes)?),
        Node::Interval { bounds, is_open } => {
            let (open, close) = (if is_open[0] { '(' } else { '[' }, if is_open[1] { ')' } else { ']' });
            format!("{open}{}{close}", list(&bounds[..])?)
        }
        Node::Named(set) => match set {
            NamedSet::Naturals => "\\mathbb{N}",
            NamedSet::Integers => "\\mathbb{Z}",
            NamedSet::Rationals => "\\mathbb{Q}",
            NamedSet::Reals => "\\mathbb{R}",
            NamedSet::Complexes => "\\mathbb{C}",
            NamedSet::Empty => "\\emptyset",
        }
        .into(),
        Node::Combined(operation, both) => {
            let sign = match operation {
                SetOperation::Union => "\\cup",
                SetOperation::Intersection => "\\cap",
                SetOperation::Difference => "\\setminus",
            };
            format!("{} {sign} {}", printed(&both[0])?, printed(&both[1])?)
        }
        Node::Matrix(rows) => {
            let rows: Vec<String> = rows
                .iter()
                .map(|row| Some(row.iter().map(printed).collect::<Option<Vec<_>>>()?.join(" & ")))
                .collect::<Option<_>>()?;
            format!("\\begin{{pmatrix}} {} \\end{{pmatrix}}", rows.join(" \\\\ "))
        }
        // The value stands for the assignment.
        Node::Chain(first, rest) if is_name(first) && rest.iter().all(|(relation, _)| *relation == Relation::Equal) => {
            printed(&rest.last()?.1)?
        }
        Node::Chain(first, rest) => {
            let mut text = printed(first)?;
            for (relation, node) in rest {
                text.push_str(&format!(" {} {}", relation.sign(), printed(node)?));
            }
            text
        }
        other => Canonical::of(&crate::linear::folded(other))?.print(),
    })
}

fn list(nodes: &[Node]) -> Option<String> {
    Some(nodes.iter().map(printed).collect::<Option<Vec<_>>>()?.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let printed = print(&parse(text).unwrap_or_else(|| panic!("{text} does not parse")));
        assert_eq!(printed.as_deref(), Some(expected), "{text}");
        let again = print(&parse(expected).unwrap_or_else(|| panic!("{expected} does not parse")));
        assert_eq!(again.as_deref(), Some(expected), "{expected}");
    }

    #[test]
    fn equal_answers_have_one_text() {
        for text in ["0.5", "1/2", r"\frac12", r"\dfrac{2}{4}", "x = 1/2", r"\frac{50}{100}"] {
            check(text, "1/2");
        }
        check(r"\sqrt{8}", "2*sqrt(2)");
        check(r"\frac{1}{\sqrt{2}}", "sqrt(2)/2");
        check("3, 1, 2, 1", r"\{1, 2, 3\}");
        check(r"(0.5, \infty)", "(1/2, oo)");
        check("(x+1)^2", "x^2 + 2*x + 1");
        check("1 + 2x", "2*x + 1");
        check(r"28\%", r"28\%");
        check(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}");
        check(r"\text{Evelyn}", r"\text{evelyn}");
        check(r"3 + 4i", "4*i + 3");
        check(r"x_1 + \alpha", r"x_1 + \alpha");
        check(r"\sin(\pi/4)", "sqrt(2)/2");
    }
}
