//! FP8 weights with a scale for each block (DeepSeek-V3 report, section 3.3.2), as DeepSeek publishes them.

use std::array::from_fn;
use std::sync::LazyLock;

use serde_json::Value;

/// The value of each E4M3 code (Micikevicius et al. 2022, arXiv 2209.05433, table 1): a sign, four bits of exponent with
/// bias 7, three of mantissa, no infinities; 0x7f and 0xff are NaN.
static E4M3: LazyLock<[f32; 256]> = LazyLock::new(|| {
    from_fn(|code| {
        let bits = code as u32;
        if bits & 0x7f == 0x7f {
            return f32::NAN;
        }
        // The fields lie in an f32 as they are, below a bias that is 120 greater; so do the subnormal numbers.
        let magnitude = f32::from_bits((bits & 0x7f) << 20) * f32::from_bits((127 + 120) << 23);
        if bits & 0x80 == 0 { magnitude } else { -magnitude }
    })
});

/// How a checkpoint's F8_E4M3 weights are scaled: `[rows, columns]` of a block that shares a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub rows: usize,
    pub columns: usize,
}

impl Blocks {
    /// Reads a config's `quantization_config`.
    ///
    /// # Errors
    /// Another method than FP8 in blocks.
    pub fn from_json(json: &Value) -> Result<Self, String> {
        let refuse = |what: String| {
            Err(format!(
                "`quantization_config` has {what}; read are \"fp8\" weights with a `weight_block_size`: \
                 convert the others to bfloat16 and remove `quantization_config`"
            ))
        };
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        match text("quant_method") {
            Some("fp8") => {}
            Some(method) => return refuse(format!("`quant_method` \"{method}\"")),
            None => return refuse("no `quant_method`".into()),
        }
        if let Some(format) = text("fmt").filter(|&format| format != "e4m3") {
            return refuse(format!("`fmt` \"{format}\""));
        }
        let sizes = json.get("weight_block_size").map(|sizes| serde_json::from_value::<[usize; 2]>(sizes.clone()));
        match sizes {
            Some(Ok([rows, columns])) if rows > 0 && columns > 0 => Ok(Self { rows, columns }),
            _ => refuse("no `weight_block_size` of two positive numbers".into()),
        }
    }

    /// The name of the tensor with the factors of a weight.
    pub fn scale_name(weight: &str) -> String {
        format!("{weight}_scale_inv")
    }

    /// The shape of the factors of a weight: a block at the right or lower edge may be smaller. `None` if the weight is
    /// no matrix.
    pub fn scale_shape(self, weight: &[usize]) -> Option<Vec<usize>> {
        let &[rows, columns] = weight else { return None };
        Some(vec![rows.div_ceil(self.rows), columns.div_ceil(self.columns)])
    }

    /// The numbers of a run of elements that begins at element `from` of a weight with `width` columns.
    pub fn dequantise(self, codes: &[u8], scales: &[f32], width: usize, from: usize, out: &mut [f32]) {
        let across = width.div_ceil(self.columns);
        let (table, mut done) = (&*E4M3, 0);
        while done < out.len() {
            let (row, column) = ((from + done) / width, (from + done) % width);
            // To the block's end, the row's end or the run's.
            let len = (self.columns - column % self.columns).min(width - column).min(out.len() - done);
            let scale = scales[row / self.rows * across + column / self.columns];
            let run = out[done..done + len].iter_mut().zip(&codes[done..done + len]);
            run.for_each(|(value, &code)| *value = table[usize::from(code)] * scale);
            done += len;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_codes_have_the_values_of_the_format() {
        for code in 0..=255u8 {
            let (exponent, mantissa) = (u32::from(code >> 3 & 15), u32::from(code & 7));
            let got = E4M3[usize::from(code)];
            if code & 0x7f == 0x7f {
                assert!(got.is_nan(), "{code:#x}");
                continue;
            }
            // In units of 2^-9, the smallest subnormal number.
            let units = if exponent == 0 { mantissa } else { (8 + mantissa) << (exponent - 1) };
            let magnitude = units as f32 / 512.0;
            assert_eq!(got.abs(), magnitude, "{code:#x}");
            assert_eq!(got.is_sign_negative(), code >= 0x80, "{code:#x}");
        }
        assert_eq!((E4M3[0x7e], E4M3[0x38], E4M3[1]), (448.0, 1.0, 0.001_953_125));
    }

    #[test]
    fn each_element_has_its_blocks_factor_from_wherever_a_run_begins() {
        let blocks = Blocks { rows: 2, columns: 3 };
        // 3 x 4 in blocks of 2 x 3: the right and the lower blocks are cut.
        assert_eq!(blocks.scale_shape(&[3, 4]), Some(vec![2, 2]));
        let scales = [1.0, 10.0, 100.0, 1000.0];
        let expected = [1.0, 1.0, 1.0, 10.0, 1.0, 1.0, 1.0, 10.0, 100.0, 100.0, 100.0, 1000.0];
        let codes = [0x38; 12]; // 1.0
        for from in 0..12 {
            for to in from..=12 {
                let mut out = vec![0.0; to - from];
                blocks.dequantise(&codes[from..to], &scales, 4, from, &mut out);
                assert_eq!(out, expected[from..to]);
            }
        }
    }

    #[test]
    fn other_methods_are_refused_in_words() {
        let read = |json: Value| Blocks::from_json(&json);
        let published = json!({"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]});
        assert_eq!(read(published).unwrap(), Blocks { rows: 128, columns: 128 });
        for (json, expected) in [
            (json!({"quant_method": "gptq"}), "`quant_method` \"gptq\""),
            (json!({"bits": 4}), "no `quant_method`"),
            (json!({"quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [128, 128]}), "`fmt` \"e5m2\""),
            (json!({"quant_method": "fp8"}), "no `weight_block_size`"),
            (json!({"quant_method": "fp8", "weight_block_size": [0, 128]}), "no `weight_block_size`"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(expected) && error.contains("convert the others to bfloat16"), "{error}");
        }
    }
}
