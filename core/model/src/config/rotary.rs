//! Rotary position embedding: its frequencies, and the ways of stretching a short context to a longer one.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Common, Reading};

/// Rotary position embedding.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// The base of the frequencies.
    pub theta: f64,
    /// Whether the pairs are `(0, 1), (2, 3), ..` and not `(0, R/2), (1, R/2 + 1), ..`.
    pub interleaved: bool,
    /// How a model of short contexts was stretched to longer ones.
    pub stretch: Stretch,
}

/// How a model of short contexts was stretched to longer ones.
#[derive(Clone, Debug)]
pub enum Stretch {
    /// It was not.
    None,
    /// Frequencies by their wavelength, as Llama 3.1 does.
    Llama3(Llama3),
    /// YaRN.
    Yarn(Yarn),
}

/// Llama 3.1's stretching: long waves by the whole factor, short ones not at all, those between by a part.
#[derive(Clone, Debug, Deserialize)]
pub struct Llama3 {
    /// How many times longer the context became.
    pub factor: f64,
    /// The context before.
    #[serde(rename = "original_max_position_embeddings")]
    pub original: f64,
    /// Waves that fit fewer times than this into the original context are fully stretched.
    #[serde(rename = "low_freq_factor")]
    pub low: f64,
    /// Waves that fit more often than this keep their frequency.
    #[serde(rename = "high_freq_factor")]
    pub high: f64,
}

/// YaRN (Peng et al., arXiv 2309.00071), with DeepSeek's two factors for the attention's temperature.
#[derive(Clone, Debug, Deserialize)]
pub struct Yarn {
    /// How many times longer the context became.
    pub factor: f64,
    /// The context before.
    #[serde(rename = "original_max_position_embeddings")]
    pub original: f64,
    /// Dimensions that rotate more often than this within the original context keep their frequency.
    #[serde(default = "thirty_two")]
    pub beta_fast: f64,
    /// Dimensions that rotate less often than this are fully stretched.
    #[serde(default = "one")]
    pub beta_slow: f64,
    /// What cosines and sines are multiplied by, where the file says it outright.
    #[serde(default)]
    pub attention_factor: Option<f64>,
    /// The temperature's coefficient on the rotated part.
    #[serde(default)]
    pub mscale: Option<f64>,
    /// The temperature's coefficient on all dimensions.
    #[serde(default)]
    pub mscale_all_dim: Option<f64>,
}

fn one() -> f64 {
    1.0
}

fn thirty_two() -> f64 {
    32.0
}

impl Rotary {
    /// Reads either spelling; `theta` is the family's base where the file names none.
    pub(super) fn read(common: &Common, theta: f64, interleaved: bool) -> Reading<Self> {
        let none = Map::new();
        let parameters = common.rope_parameters.as_ref().or(common.rope_scaling.as_ref()).unwrap_or(&none);
        let theta = parameters.get("rope_theta").and_then(Value::as_f64).or(common.rope_theta).unwrap_or(theta);
        if !(theta > 1.0 && theta.is_finite()) {
            return Err(format!("`rope_theta` is {theta}; it must be above 1"));
        }
        let partial = parameters.get("partial_rotary_factor").and_then(Value::as_f64).or(common.partial_rotary_factor);
        if let Some(part) = partial.filter(|part| *part != 1.0) {
            return Err(format!("`partial_rotary_factor` is {part}; rotating a part of a head is not implemented"));
        }
        let kind = parameters.get("rope_type").or_else(|| parameters.get("type")).and_then(Value::as_str);
        let stretch = match kind.unwrap_or("default") {
            "default" => Stretch::None,
            "llama3" => Stretch::Llama3(Llama3::read(parameters)?),
            "yarn" => Stretch::Yarn(Yarn::read(parameters)?),
            other => {
                return Err(format!(
                    "rope type \"{other}\" is not implemented; \"default\", \"llama3\" and \"yarn\" are"
                ));
            }
        };
        Ok(Self { theta, interleaved, stretch })
    }

    /// The angular frequency of each pair of a head of width `dim`, in radians a position.
    pub fn frequencies(&self, dim: usize) -> Vec<f64> {
        let plain = |i: usize| libm::pow(self.theta, -((2 * i) as f64) / dim as f64);
        match &self.stretch {
            Stretch::None => (0..dim / 2).map(plain).collect(),
            Stretch::Llama3(llama) => (0..dim / 2).map(|i| llama.stretched(plain(i))).collect(),
            Stretch::Yarn(yarn) => {
                // The dimension that turns `rotations` times within the original context.
                let dimension = |rotations: f64| {
                    let turns = yarn.original / (rotations * std::f64::consts::TAU);
                    dim as f64 * libm::log(turns) / (2.0 * libm::log(self.theta))
                };
                let low = dimension(yarn.beta_fast).floor().max(0.0);
                let high = dimension(yarn.beta_slow).ceil().min(dim as f64 - 1.0);
                let width = if high > low { high - low } else { 0.001 };
                let stretched = |i: usize| {
                    let part = ((i as f64 - low) / width).clamp(0.0, 1.0);
                    plain(i) / yarn.factor * part + plain(i) * (1.0 - part)
                };
                (0..dim / 2).map(stretched).collect()
            }
        }
    }

    /// What cosines and sines are multiplied by.
    pub fn table_scale(&self) -> f64 {
        let Stretch::Yarn(yarn) = &self.stretch else { return 1.0 };
        match *yarn {
            Yarn { attention_factor: Some(factor), .. } => factor,
            Yarn { factor, mscale: Some(rotated), mscale_all_dim: Some(all), .. } => {
                mscale(factor, rotated) / mscale(factor, all)
            }
            Yarn { factor, .. } => mscale(factor, 1.0),
        }
    }

    /// YaRN's temperature on all dimensions; its square multiplies the scores of latent attention.
    pub fn temperature(&self) -> f64 {
        match self.stretch {
            Stretch::Yarn(Yarn { factor, mscale_all_dim: Some(coefficient), .. }) => mscale(factor, coefficient),
            _ => 1.0,
        }
    }
}

impl Llama3 {
    fn read(parameters: &Map<String, Value>) -> Reading<Self> {
        let llama: Self = serde_json::from_value(Value::Object(parameters.clone()))
            .map_err(|error| format!("the parameters of rope type \"llama3\": {error}"))?;
        let Self { factor, original, low, high } = llama;
        if !(factor >= 1.0 && factor.is_finite() && original >= 1.0 && low > 0.0 && high > low && high.is_finite()) {
            return Err("rope type \"llama3\" needs a factor and an original context of at least 1, and \
                 `high_freq_factor` above `low_freq_factor` above 0"
                .into());
        }
        Ok(llama)
    }

    fn stretched(&self, frequency: f64) -> f64 {
        let waves = self.original * frequency / std::f64::consts::TAU;
        let kept = ((waves - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        frequency / self.factor * (1.0 - kept) + frequency * kept
    }
}

impl Yarn {
    fn read(parameters: &Map<String, Value>) -> Reading<Self> {
        let yarn: Self = serde_json::from_value(Value::Object(parameters.clone()))
            .map_err(|error| format!("YaRN's parameters: {error}"))?;
        if !(yarn.factor >= 1.0 && yarn.factor.is_finite() && yarn.original >= 1.0) {
            return Err("YaRN's factor and original context must be at least 1".into());
        }
        Ok(yarn)
    }
}

/// YaRN's temperature: `0.1 * coefficient * ln(factor) + 1`.
fn mscale(factor: f64, coefficient: f64) -> f64 {
    if factor > 1.0 { 0.1 * coefficient * libm::log(factor) + 1.0 } else { 1.0 }
}
