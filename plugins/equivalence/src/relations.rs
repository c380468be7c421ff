//! Equations and inequalities.

use crate::compare::{Comparison, Proof, Settings, scalars, unwrapped};
use crate::numeric::{self, Point};
use crate::tree::{Constant, Node, Relation};

struct Link<'a> {
    left: &'a Node,
    relation: Relation,
    right: &'a Node,
}

fn links(node: &Node) -> Vec<Link<'_>> {
    let Node::Chain(first, rest) = node else { return Vec::new() };
    let mut left = &**first;
    rest.iter()
        .map(|(relation, right)| {
            let link = Link { left, relation: *relation, right };
            left = right;
            link
        })
        .collect()
}

/// Compares two chains of relations: link by link, in order or the other way round.
pub fn compare(reference: &Node, answer: &Node, settings: &Settings, depth: usize) -> Comparison {
    let (ours, theirs) = (links(reference), links(answer));
    if ours.len() != theirs.len() {
        return Comparison::Different;
    }
    let all = |theirs: &mut dyn Iterator<Item = &Link<'_>>| {
        ours.iter().zip(theirs).fold(Comparison::Equal(Proof::Exact), |total, (a, b)| {
            if total == Comparison::Different { total } else { total.and(link(a, b, settings, depth)) }
        })
    };
    let straight = all(&mut theirs.iter());
    if straight.is_equal() || ours.len() == 1 {
        return straight;
    }
    let reversed = all(&mut theirs.iter().rev());
    if reversed.is_equal() { reversed } else { straight }
}

fn link(a: &Link<'_>, b: &Link<'_>, settings: &Settings, depth: usize) -> Comparison {
    let holds = |node: &Node| node.is_collection() || matches!(node, Node::Matrix(_) | Node::Opaque(..));
    if [a.left, a.right, b.left, b.right].into_iter().any(holds) {
        let direct = |left: &Node, right: &Node| {
            unwrapped(a.left, left, settings, depth + 1).and(unwrapped(a.right, right, settings, depth + 1))
        };
        let straight = if a.relation == b.relation { direct(b.left, b.right) } else { Comparison::Different };
        if straight.is_equal() || a.relation != b.relation.flipped() {
            return straight;
        }
        return direct(b.right, b.left);
    }
    let difference = |link: &Link<'_>| Node::Add(vec![link.left.clone(), link.right.clone().negated()]);
    let (ours, theirs) = (difference(a), difference(b));
    if a.relation == b.relation {
        let same = scalars(&ours, &theirs, settings);
        if same.is_equal() {
            return same;
        }
    }
    if a.relation == b.relation.flipped() {
        let same = scalars(&ours, &theirs.clone().negated(), settings);
        if same.is_equal() {
            return same;
        }
    }
    let both = a.relation == b.relation.flipped() && a.relation == b.relation;
    if !both && a.relation != b.relation && a.relation != b.relation.flipped() {
        return Comparison::Different;
    }
    match ratio(&ours, &theirs, settings) {
        Some(ratio) if both || (ratio > 0.0) == (a.relation == b.relation) => Comparison::Equal(Proof::Numeric),
        _ => Comparison::Different,
    }
}

/// The constant that two expressions in the same variables differ by as factors.
fn ratio(a: &Node, b: &Node, settings: &Settings) -> Option<f64> {
    let (mut names, mut others) = (a.variables(), b.variables());
    names.sort();
    others.sort();
    if names.is_empty() || names != others {
        return None;
    }
    let (mut found, mut agreed): (Option<f64>, u32) = (None, 0);
    for index in 0..16 {
        let point = Point::new(&names, index, settings.domain);
        let (Some(x), Some(y)) = (numeric::value(a, &point), numeric::value(b, &point)) else { continue };
        if x.abs() < 1e-9 && y.abs() < 1e-9 {
            continue;
        }
        let ratio = x.over(y).as_real().filter(|ratio| ratio.is_finite() && *ratio != 0.0)?;
        if found.is_some_and(|found| (found - ratio).abs() > 1e-9 * found.abs()) {
            return None;
        }
        found = Some(ratio);
        agreed += 1;
        if agreed == 6 {
            break;
        }
    }
    found.filter(|_| agreed > 2)
}

/// The set of values of the one name that a chain of inequalities restricts.
pub fn solution(node: &Node) -> Option<Node> {
    let infinity = Node::Constant(Constant::Infinity);
    let (mut low, mut high) = (infinity.clone().negated(), infinity);
    let mut is_open = [true, true];
    let mut name: Option<&Node> = None;
    for link in links(node) {
        let (subject, relation, bound) = if is_subject(link.left) {
            (link.left, link.relation, link.right)
        } else if is_subject(link.right) {
            (link.right, link.relation.flipped(), link.left)
        } else {
            return None;
        };
        if name.is_some_and(|known| known != subject) {
            return None;
        }
        name = Some(subject);
        match relation {
            Relation::Less | Relation::LessEqual => {
                high = bound.clone();
                is_open[1] = relation == Relation::Less;
            }
            Relation::Greater | Relation::GreaterEqual => {
                low = bound.clone();
                is_open[0] = relation == Relation::Greater;
            }
            Relation::Equal => {
                return Some(if bound.is_collection() { bound.clone() } else { Node::Set(vec![bound.clone()]) });
            }
            Relation::NotEqual => return None,
        }
    }
    name?;
    Some(Node::Interval { bounds: Box::new([low, high]), is_open })
}

fn is_subject(node: &Node) -> bool {
    matches!(node, Node::Symbol(_) | Node::Apply(..))
}
