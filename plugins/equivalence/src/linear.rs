//! Sums and products of matrices.

use std::borrow::Cow;

use crate::tree::{Constant, Node};

/// Rows and columns at most: products of larger ones stay as they were written.
const SIDE: usize = 12;

/// The node with sums, products and transposes of matrices carried out.
pub fn folded(node: &Node) -> Cow<'_, Node> {
    if !node.any(&mut |node| matches!(node, Node::Matrix(_))) {
        return Cow::Borrowed(node);
    }
    Cow::Owned(fold(node))
}

fn fold(node: &Node) -> Node {
    match node {
        Node::Add(nodes) => {
            let nodes: Vec<Node> = nodes.iter().map(fold).collect();
            sum(&nodes).map_or(Node::Add(nodes), Node::Matrix)
        }
        Node::Mul(nodes) => {
            let nodes: Vec<Node> = nodes.iter().map(fold).collect();
            product(&nodes).map_or(Node::Mul(nodes), Node::Matrix)
        }
        Node::Pow(base, exponent) => match (fold(base), &**exponent) {
            (Node::Matrix(rows), Node::Symbol(name)) if name == "t" => Node::Matrix(transposed(&rows)),
            (Node::Matrix(rows), Node::Constant(Constant::E)) => {
                Node::Pow(Box::new(Node::Matrix(rows)), exponent.clone())
            }
            (base, exponent) => Node::Pow(Box::new(base), Box::new(exponent.clone())),
        },
        Node::Tuple(nodes) => Node::Tuple(nodes.iter().map(fold).collect()),
        Node::Set(nodes) => Node::Set(nodes.iter().map(fold).collect()),
        Node::Chain(first, rest) => {
            Node::Chain(Box::new(fold(first)), rest.iter().map(|(relation, node)| (*relation, fold(node))).collect())
        }
        other => other.clone(),
    }
}

type Rows = Vec<Vec<Node>>;

fn transposed(rows: &Rows) -> Rows {
    (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column].clone()).collect()).collect()
}

fn sum(nodes: &[Node]) -> Option<Rows> {
    let mut total: Option<Rows> = None;
    for node in nodes {
        let Node::Matrix(rows) = node else { return None };
        total = Some(match total {
            None => rows.clone(),
            Some(total) => {
                if total.len() != rows.len() || total[0].len() != rows[0].len() {
                    return None;
                }
                let add = |(a, b): (Node, &Node)| Node::Add(vec![a, b.clone()]);
                total.into_iter().zip(rows).map(|(a, b)| a.into_iter().zip(b).map(add).collect()).collect()
            }
        });
    }
    total
}

fn product(nodes: &[Node]) -> Option<Rows> {
    let mut scalars = Vec::new();
    let mut total: Option<Rows> = None;
    for node in nodes {
        let Node::Matrix(rows) = node else {
            scalars.push(node.clone());
            continue;
        };
        total = Some(match total {
            None => rows.clone(),
            Some(total) => {
                if total[0].len() != rows.len() || total.len() > SIDE || rows[0].len() > SIDE || rows.len() > SIDE {
                    return None;
                }
                let cell = |row: &Vec<Node>, column: usize| {
                    let terms = row.iter().zip(rows).map(|(a, b)| Node::Mul(vec![a.clone(), b[column].clone()]));
                    Node::Add(terms.collect())
                };
                total.iter().map(|row| (0..rows[0].len()).map(|column| cell(row, column)).collect()).collect()
            }
        });
    }
    let total = total?;
    if scalars.is_empty() {
        return Some(total);
    }
    let scaled = |node: Node| Node::Mul(scalars.iter().cloned().chain([node]).collect());
    Some(total.into_iter().map(|row| row.into_iter().map(scaled).collect()).collect())
}
