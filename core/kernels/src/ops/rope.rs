//! Rotary position embedding (Su et al., RoFormer, eq. 34).

use candle_core::{Device, Result, Tensor, bail};

/// Tables of cosines and sines, `[max, R / 2]`, computed in f64.
#[derive(Clone, Debug)]
pub struct Rope {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
    pub(crate) max: usize,
    pub(crate) interleaved: bool,
}

impl Rope {
    /// Tables for `max` positions. `inv_freq` has the `R / 2` angular frequencies, in radians a position; `scale`
    /// multiplies both tables (YaRN's attention factor). Interleaved, the pairs are `(0, 1), (2, 3), ..`, otherwise
    /// `(0, R/2), (1, R/2 + 1), ..`; a pair stays where it was.
    ///
    /// # Errors
    /// The device fails.
    pub fn new(inv_freq: &[f64], scale: f64, max: usize, interleaved: bool, device: &Device) -> Result<Self> {
        let angles = || (0..max).flat_map(|position| inv_freq.iter().map(move |frequency| position as f64 * frequency));
        let table = |values: Vec<f32>| Tensor::from_vec(values, (max, inv_freq.len()), device);
        Ok(Self {
            cos: table(angles().map(|angle| (libm::cos(angle) * scale) as f32).collect())?,
            sin: table(angles().map(|angle| (libm::sin(angle) * scale) as f32).collect())?,
            max,
            interleaved,
        })
    }

    /// Refuses a position beyond the tables, or another width.
    pub(crate) fn check(&self, width: usize, positions: &[u32], rows: usize) -> Result<()> {
        let half = self.cos.dim(1)?;
        if width != 2 * half {
            bail!("rope: the input's last dimension is {width}, the table serves {}", 2 * half);
        }
        if positions.len() != rows {
            bail!("rope: {} positions for {rows} rows", positions.len());
        }
        if let Some(position) = positions.iter().find(|position| **position as usize >= self.max) {
            bail!("rope: position {position} lies beyond the table's {} positions", self.max);
        }
        Ok(())
    }
}
