//! The DAG of a pipeline: which stage feeds which, and in which order they can be made ready.

use indexmap::IndexMap;
use petgraph::Direction;
use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Bfs, EdgeRef, Reversed};
use spec::{JudgeBy, Pipeline, Stage, StageKind};

use crate::error::Error;

/// A pipeline's stages as a graph whose edges point the way that groups flow.
pub(crate) struct Plan<'a> {
    graph: DiGraph<Node<'a>, usize>,
    order: Vec<NodeIndex>,
}

/// A stage and its name.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    pub name: &'a str,
    pub stage: &'a Stage,
}

impl<'a> Plan<'a> {
    /// The plan of a validated pipeline. An edge's weight is its position in the `inputs` of the stage it leads to. A
    /// verify stage without inputs serves evaluations only, and has no part in a step.
    pub fn new(pipeline: &'a Pipeline) -> Result<Self, Error> {
        let mut graph = DiGraph::new();
        let in_step = |stage: &Stage| !(matches!(stage.kind, StageKind::Verify(_)) && stage.inputs.is_empty());
        let nodes: IndexMap<&str, NodeIndex> = pipeline
            .stages
            .iter()
            .filter(|(_, stage)| in_step(stage))
            .map(|(name, stage)| (name.as_str(), graph.add_node(Node { name, stage })))
            .collect();
        for (name, to) in &nodes {
            for (position, input) in pipeline.stages[*name].inputs.iter().enumerate() {
                let from = nodes
                    .get(input.as_str())
                    .ok_or_else(|| Error::Defect(format!("stage `{input}` passed validation but does not exist")))?;
                graph.add_edge(*from, *to, position);
            }
        }
        let order = toposort(&graph, None).map_err(|cycle| {
            Error::Defect(format!("a cycle at `{}` passed validation", graph[cycle.node_id()].name))
        })?;
        Ok(Self { graph, order })
    }

    /// The stages, each after all that feed it.
    pub fn order(&self) -> impl Iterator<Item = Node<'a>> {
        self.order.iter().map(|&index| self.graph[index])
    }

    /// Where the groups of the stage at a place of the order go: the place of the stage that takes them, and the position
    /// among its inputs.
    pub fn outputs(&self, from: usize) -> Vec<(usize, usize)> {
        let place = |index| self.order.iter().position(|other| *other == index);
        let edges = self.graph.edges_directed(self.order[from], Direction::Outgoing);
        let mut outputs: Vec<_> = edges.filter_map(|edge| Some((place(edge.target())?, *edge.weight()))).collect();
        outputs.sort_unstable();
        outputs
    }

    /// The places of the stage at a place of the order and of all that flows into it, in order.
    pub fn upstream(&self, to: usize) -> Vec<usize> {
        let mut found = vec![to];
        for place in (0..to).rev() {
            if self.outputs(place).iter().any(|(target, _)| found.contains(target)) {
                found.push(place);
            }
        }
        found.sort_unstable();
        found
    }

    /// The nearest stage before `name` that `pick` accepts.
    pub fn before<T>(&self, name: &str, pick: impl Fn(Node<'a>) -> Option<T>) -> Option<T> {
        let start = self.graph.node_indices().find(|&index| self.graph[index].name == name)?;
        let reversed = Reversed(&self.graph);
        let mut walk = Bfs::new(reversed, start);
        std::iter::from_fn(|| walk.next(reversed)).skip(1).find_map(|index| pick(self.graph[index]))
    }

    /// The nearest stage after `name` that `pick` accepts.
    pub fn after<T>(&self, name: &str, pick: impl Fn(Node<'a>) -> Option<T>) -> Option<T> {
        let start = self.graph.node_indices().find(|&index| self.graph[index].name == name)?;
        let mut walk = Bfs::new(&self.graph, start);
        std::iter::from_fn(|| walk.next(&self.graph)).skip(1).find_map(|index| pick(self.graph[index]))
    }

    /// The sample stage that made what reaches `name`.
    pub fn sample_before(&self, name: &str) -> Option<(&'a str, &'a spec::Sample)> {
        self.before(name, |node| match &node.stage.kind {
            StageKind::Sample(sample) => Some((node.name, sample)),
            _ => None,
        })
    }

    /// The model that rows of the source stage `name` are made for: their template and their tokens are its own.
    pub fn model_after(&self, name: &str) -> Option<&'a str> {
        self.after(name, |node| match &node.stage.kind {
            StageKind::Sample(sample) => Some(sample.model.as_str()),
            _ => learning(&node.stage.kind).map(|learning| learning.model.as_str()),
        })
    }
}

/// What a pipeline wants of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Tokens and their log-probabilities.
    Language,
    /// Scores.
    Judge,
    /// To learn to score: a language model gets a head for it.
    NewJudge,
}

/// The role of a model: validation lets each have one.
pub(crate) fn role(pipeline: &Pipeline, model: &str) -> Role {
    let of = |stage: &Stage| match &stage.kind {
        StageKind::TrainJudge(train) if train.learning.model == model => Some(Role::NewJudge),
        StageKind::Judge(judge) if judge.model == model && matches!(judge.by, JudgeBy::Score(_)) => Some(Role::Judge),
        _ => None,
    };
    pipeline.stages.values().find_map(of).unwrap_or(Role::Language)
}

impl Role {
    /// Why a model can't have this role; the message goes on from where it was read.
    pub fn refusal(self, gives_scores: bool) -> Option<&'static str> {
        match (self, gives_scores) {
            (Self::Language, true) => Some(
                "it is a reward model: it has a head for scores, and none for tokens; give a language model's folder",
            ),
            (Self::Judge, false) => Some(
                "it has no score head: it is a language model; train one from it with a `train-judge` stage, or give the \
                 folder of a reward model (`...ForSequenceClassification` with one label)",
            ),
            _ => None,
        }
    }
}

/// The pairs stage that a stage takes its input from, if it does.
pub(crate) fn pairs_before<'a>(pipeline: &'a Pipeline, stage: &Stage) -> Option<(&'a str, &'a spec::Pairs)> {
    stage.inputs.iter().find_map(|input| match pipeline.stages.get_key_value(input) {
        Some((name, Stage { kind: StageKind::Pairs(pairs), .. })) => Some((name.as_str(), pairs)),
        _ => None,
    })
}

/// The model that a pipeline trains, if it trains one.
pub(crate) fn trained_model(pipeline: &Pipeline) -> Option<&str> {
    pipeline.stages.values().find_map(|stage| learning(&stage.kind)).map(|learning| learning.model.as_str())
}

/// The model whose weights a phase's `init` gives: the one that learns, or the only one.
pub(crate) fn initialised_model(pipeline: &Pipeline) -> Option<&str> {
    trained_model(pipeline).or_else(|| pipeline.models.keys().next().map(String::as_str))
}

/// What a learning stage shares with others; `None` for stages that don't learn.
pub(crate) fn learning(kind: &StageKind) -> Option<&spec::Learning> {
    match kind {
        StageKind::Sft(sft) => Some(&sft.learning),
        StageKind::Grpo(grpo) => Some(&grpo.learning),
        StageKind::TrainJudge(train) => Some(&train.learning),
        StageKind::Distil(distil) => Some(&distil.learning),
        _ => None,
    }
}
