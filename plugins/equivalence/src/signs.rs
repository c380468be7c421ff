//! `\pm` and `\mp`: an element for each choice of signs.

use crate::parser::one_or_sum;
use crate::tree::{Node, Relation};

/// Puts an element on the list, once for each choice of the signs in it.
pub(crate) fn expand(element: Node, elements: &mut Vec<Node>) {
    let mut signs = 0;
    let mut is_tied = false;
    element.any(&mut |node| {
        if let Node::PlusMinus(_, _, is_minus) = node {
            signs += 1;
            is_tied |= *is_minus;
        }
        false
    });
    if signs == 0 {
        elements.push(element);
        return;
    }
    let choices: Vec<Node> = if signs == 1 || is_tied || signs > 3 {
        [0, usize::MAX].iter().map(|choice| chosen(&element, &mut choice.clone())).collect()
    } else {
        (0..1 << signs).map(|choice: usize| chosen(&element, &mut choice.clone())).collect()
    };
    // `x = \pm 2` is an equation with a set.
    if let Node::Chain(first, rest) = &element
        && let [(Relation::Equal, _)] = rest[..]
    {
        let values = choices
            .into_iter()
            .filter_map(|choice| match choice {
                Node::Chain(_, mut rest) => rest.pop().map(|(_, value)| value),
                _ => None,
            })
            .collect();
        elements.push(Node::Chain(first.clone(), vec![(Relation::Equal, Node::Set(values))]));
        return;
    }
    elements.extend(choices);
}

/// The node with its signs chosen: the bits of `choice`, from the lowest.
fn chosen(node: &Node, choice: &mut usize) -> Node {
    let all = |nodes: &[Node], choice: &mut usize| nodes.iter().map(|node| chosen(node, choice)).collect::<Vec<_>>();
    match node {
        Node::PlusMinus(before, after, is_minus) => {
            let negative = (*choice & 1 == 1) != *is_minus;
            *choice = if *choice == usize::MAX { usize::MAX } else { *choice >> 1 };
            let mut terms = all(before, choice);
            let after = chosen(after, choice);
            terms.push(if negative { after.negated() } else { after });
            one_or_sum(terms)
        }
        Node::Percent(inner) => Node::Percent(Box::new(chosen(inner, choice))),
        Node::Add(nodes) => Node::Add(all(nodes, choice)),
        Node::Mul(nodes) => Node::Mul(all(nodes, choice)),
        Node::Call(function, nodes) => Node::Call(*function, all(nodes, choice)),
        Node::Apply(name, nodes) => Node::Apply(name.clone(), all(nodes, choice)),
        Node::Set(nodes) => Node::Set(all(nodes, choice)),
        Node::Tuple(nodes) => Node::Tuple(all(nodes, choice)),
        Node::Pow(a, b) => Node::Pow(Box::new(chosen(a, choice)), Box::new(chosen(b, choice))),
        Node::Interval { bounds, is_open } => Node::Interval {
            bounds: Box::new([chosen(&bounds[0], choice), chosen(&bounds[1], choice)]),
            is_open: *is_open,
        },
        Node::Chain(first, rest) => Node::Chain(
            Box::new(chosen(first, choice)),
            rest.iter().map(|(relation, node)| (*relation, chosen(node, choice))).collect(),
        ),
        other => other.clone(),
    }
}
