//! How the losses of tokens become one number.

/// How the losses of a minibatch's tokens become one number. Each is a weighted sum, so that the parts of a minibatch add
/// up to it however many passes it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregation {
    /// The mean over sequences of the mean over tokens (GRPO, arXiv 2402.03300, equation 3).
    SequenceMean,
    /// The mean over all tokens of the minibatch (DAPO, arXiv 2503.14476, equation 12).
    TokenMean,
    /// The mean over sequences of the sum over tokens (RLOO, arXiv 2402.14740; LUSPO).
    SequenceSum,
    /// The mean over sequences of the sum over tokens divided by a constant, the greatest length (Dr. GRPO,
    /// arXiv 2503.20783).
    Constant(f64),
}

impl Aggregation {
    /// What a token of each sequence weighs, from the number of tokens in the loss of each.
    pub fn weights(&self, tokens: &[usize]) -> Vec<f64> {
        let (sequences, all) = (tokens.len(), tokens.iter().sum::<usize>().max(1));
        let weight = |&tokens: &usize| match self {
            Self::SequenceMean => 1.0 / (sequences * tokens.max(1)) as f64,
            Self::TokenMean => 1.0 / all as f64,
            Self::SequenceSum => 1.0 / sequences as f64,
            Self::Constant(length) => 1.0 / (sequences as f64 * length),
        };
        tokens.iter().map(weight).collect()
    }
}
