//! Sets, tuples and intervals.

use crate::compare::{Comparison, Proof, Settings, all, unwrapped};
use crate::numeric;
use crate::tree::{Constant, NamedSet, Node, SetOperation};

/// Elements at most.
const ELEMENTS: usize = 300;

/// Compares two objects of which at least one is a collection.
pub fn compare(reference: &Node, answer: &Node, settings: &Settings, depth: usize) -> Comparison {
    if let (Node::Interval { bounds: a, is_open: x }, Node::Interval { bounds: b, is_open: y }) = (reference, answer) {
        if x != y {
            return Comparison::Different;
        }
        return all(a.iter().zip(b.iter()), settings, depth);
    }
    let is_combined = |node: &Node| matches!(node, Node::Combined(..) | Node::Named(_) | Node::Interval { .. });
    if (is_combined(reference) || is_combined(answer))
        && let (Some(a), Some(b)) = (pieces(reference), pieces(answer))
    {
        let same = compare_pieces(&a, &b, settings, depth);
        if same.is_equal() {
            return same;
        }
    }
    let (Some(ours), Some(theirs)) = (elements(reference), elements(answer)) else { return Comparison::Different };
    let is_list = |node: &Node| matches!(node, Node::Set(_));
    // A tuple in the reference keeps its order, against a list in the order that this was written.
    let is_ordered = !is_list(reference) && !is_single(reference) || settings.has_ordered_lists && is_list(answer);
    if ours.len() > ELEMENTS || theirs.len() > ELEMENTS {
        return Comparison::Unknown;
    }
    if is_ordered {
        if ours.len() != theirs.len() {
            return Comparison::Different;
        }
        return all(ours.into_iter().zip(theirs), settings, depth);
    }
    if !is_list(answer) && !is_single(answer) && ours.len() < theirs.len() {
        // A tuple has as many elements as it shows.
        return Comparison::Different;
    }
    matched(&ours, &theirs, settings, depth)
}

/// An object that is no collection stands for the set of it.
fn is_single(node: &Node) -> bool {
    !node.is_collection()
}

/// The elements of what is a list, or may be one.
fn elements(node: &Node) -> Option<Vec<&Node>> {
    match node {
        Node::Set(nodes) | Node::Tuple(nodes) => Some(nodes.iter().collect()),
        Node::Interval { bounds, is_open: [true, true] } => Some(bounds.iter().collect()),
        Node::Interval { .. } | Node::Combined(..) | Node::Named(_) => None,
        other => Some(vec![other]),
    }
}

/// The value by which elements are ordered.
fn key(node: &Node) -> Option<f64> {
    match node {
        Node::Chain(_, rest) => numeric::real(&rest.last()?.1),
        other => numeric::real(other),
    }
}

/// Each element has its like, without order. Repeated elements count once.
fn matched(ours: &[&Node], theirs: &[&Node], settings: &Settings, depth: usize) -> Comparison {
    let keys = |nodes: &[&Node]| nodes.iter().map(|node| key(node)).collect::<Option<Vec<f64>>>();
    if let (Some(a), Some(b)) = (keys(ours), keys(theirs)) {
        let sorted = |nodes: &[&Node], keys: &[f64]| {
            let mut order: Vec<usize> = (0..nodes.len()).collect();
            order.sort_by(|i, j| keys[*i].total_cmp(&keys[*j]));
            order.dedup_by(|j, i| keys[*i] == keys[*j] && same_value(nodes[*i], nodes[*j]));
            order
        };
        let (i, j) = (sorted(ours, &a), sorted(theirs, &b));
        if i.len() != j.len() {
            return Comparison::Different;
        }
        let pairs = i.iter().zip(&j).map(|(i, j)| (ours[*i], theirs[*j]));
        return all(pairs, settings, depth);
    }
    if ours.len() > 40 || theirs.len() > 40 {
        return Comparison::Unknown;
    }
    let (ours, theirs) = (distinct(ours, settings, depth), distinct(theirs, settings, depth));
    if ours.len() != theirs.len() {
        return Comparison::Different;
    }
    let mut used = vec![false; theirs.len()];
    let mut total = Comparison::Equal(Proof::Exact);
    for a in ours {
        let mut found = Comparison::Different;
        for (i, b) in theirs.iter().enumerate() {
            if used[i] {
                continue;
            }
            match unwrapped(a, b, settings, depth + 1) {
                Comparison::Equal(proof) => {
                    used[i] = true;
                    found = Comparison::Equal(proof);
                    break;
                }
                Comparison::Unknown => found = Comparison::Unknown,
                Comparison::Different => {}
            }
        }
        total = total.and(found);
        if total == Comparison::Different {
            return total;
        }
    }
    total
}

fn same_value(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::Chain(x, _), Node::Chain(y, _)) => x == y,
        _ => !matches!(a, Node::Chain(..)) && !matches!(b, Node::Chain(..)),
    }
}

fn distinct<'a>(nodes: &[&'a Node], settings: &Settings, depth: usize) -> Vec<&'a Node> {
    let mut kept: Vec<&Node> = Vec::with_capacity(nodes.len());
    for node in nodes {
        if !kept
            .iter()
            .any(|known| known == node || nodes.len() <= 12 && unwrapped(known, node, settings, depth + 1).is_equal())
        {
            kept.push(node);
        }
    }
    kept
}

/// A part of the real line.
#[derive(Clone)]
struct Piece {
    low: Node,
    high: Node,
    is_open: [bool; 2],
    /// The bounds in floating point, by which pieces are put in order.
    at: [f64; 2],
}

impl Piece {
    fn new(low: Node, high: Node, is_open: [bool; 2]) -> Option<Self> {
        let at = [numeric::real(&low)?, numeric::real(&high)?];
        Some(Self { low, high, is_open, at })
    }

    fn is_empty(&self) -> bool {
        self.at[0] > self.at[1] || self.at[0] == self.at[1] && (self.is_open[0] || self.is_open[1])
    }
}

fn line() -> Vec<Piece> {
    let infinity = Node::Constant(Constant::Infinity);
    Piece::new(infinity.clone().negated(), infinity, [true, true]).into_iter().collect()
}

/// A set of real numbers as disjoint pieces in order; `None` for another set.
fn pieces(node: &Node) -> Option<Vec<Piece>> {
    let mut found = match node {
        Node::Interval { bounds, is_open } => vec![Piece::new(bounds[0].clone(), bounds[1].clone(), *is_open)?],
        Node::Named(NamedSet::Reals) => line(),
        Node::Named(NamedSet::Empty) => Vec::new(),
        Node::Set(nodes) => {
            nodes.iter().map(|node| Piece::new(node.clone(), node.clone(), [false; 2])).collect::<Option<_>>()?
        }
        Node::Combined(operation, both) => {
            let (left, right) = (pieces(&both[0])?, pieces(&both[1])?);
            match operation {
                SetOperation::Union => left.into_iter().chain(right).collect(),
                SetOperation::Intersection => intersection(&left, &right),
                SetOperation::Difference => intersection(&left, &complement(&right)),
            }
        }
        Node::Tuple(_) | Node::Chain(..) | Node::Matrix(_) => return None,
        other => vec![Piece::new(other.clone(), other.clone(), [false; 2])?],
    };
    if found.len() > ELEMENTS {
        return None;
    }
    found.retain(|piece| !piece.is_empty());
    found.sort_by(|a, b| a.at[0].total_cmp(&b.at[0]).then(a.is_open[0].cmp(&b.is_open[0])));
    let mut merged: Vec<Piece> = Vec::with_capacity(found.len());
    for piece in found {
        match merged.last_mut() {
            Some(last)
                if piece.at[0] < last.at[1] || piece.at[0] == last.at[1] && !(piece.is_open[0] && last.is_open[1]) =>
            {
                if piece.at[1] > last.at[1] {
                    last.high = piece.high;
                    last.at[1] = piece.at[1];
                    last.is_open[1] = piece.is_open[1];
                } else if piece.at[1] == last.at[1] {
                    last.is_open[1] &= piece.is_open[1];
                }
            }
            _ => merged.push(piece),
        }
    }
    Some(merged)
}

fn intersection(left: &[Piece], right: &[Piece]) -> Vec<Piece> {
    let mut found = Vec::new();
    for a in left {
        for b in right {
            if found.len() > ELEMENTS {
                return found;
            }
            let mut piece = a.clone();
            if b.at[0] > a.at[0] || b.at[0] == a.at[0] && b.is_open[0] {
                piece.low = b.low.clone();
                piece.at[0] = b.at[0];
                piece.is_open[0] = b.is_open[0];
            }
            if b.at[1] < a.at[1] || b.at[1] == a.at[1] && b.is_open[1] {
                piece.high = b.high.clone();
                piece.at[1] = b.at[1];
                piece.is_open[1] = b.is_open[1];
            }
            if !piece.is_empty() {
                found.push(piece);
            }
        }
    }
    found
}

fn complement(pieces: &[Piece]) -> Vec<Piece> {
    let mut found = Vec::new();
    let Some(mut rest) = line().pop() else { return found };
    for piece in pieces {
        let mut before = rest.clone();
        before.high = piece.low.clone();
        before.at[1] = piece.at[0];
        before.is_open[1] = !piece.is_open[0];
        if !before.is_empty() {
            found.push(before);
        }
        rest.low = piece.high.clone();
        rest.at[0] = piece.at[1];
        rest.is_open[0] = !piece.is_open[1];
    }
    if !rest.is_empty() {
        found.push(rest);
    }
    found
}

fn compare_pieces(a: &[Piece], b: &[Piece], settings: &Settings, depth: usize) -> Comparison {
    if a.len() != b.len() {
        return Comparison::Different;
    }
    let mut total = Comparison::Equal(Proof::Exact);
    for (x, y) in a.iter().zip(b) {
        // A bound at infinity is open, however it was written.
        let open = |piece: &Piece| {
            [piece.is_open[0] || piece.at[0].is_infinite(), piece.is_open[1] || piece.at[1].is_infinite()]
        };
        if open(x) != open(y) {
            return Comparison::Different;
        }
        for (p, q) in [(&x.low, &y.low), (&x.high, &y.high)] {
            total = total.and(unwrapped(p, q, settings, depth + 1));
        }
        if total == Comparison::Different {
            return total;
        }
    }
    total
}
