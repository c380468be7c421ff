//! Operations by element and by row.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::gpu::{Gpu, Weight, at, blocks, launch, on_gpu, start};
use super::node::node;
use crate::Param;
use crate::ops::{HeadRange, Rope, slow};

/// Rows of a sum over columns that are added up before the others are there; the kernels' own.
const STRETCH: usize = 64;

/// The threads of a block that works on a row of `d` elements.
fn threads(d: usize) -> usize {
    d.next_multiple_of(32).clamp(32, 256)
}

/// Adds the sum of the rows of x `[rows, d]` to `to`.
pub(super) fn add_columns(gpu: &Gpu, x: u64, to: u64, rows: usize, d: usize) -> Result<()> {
    let stretches = rows.div_ceil(STRETCH);
    let parts = gpu.memory::<f32>(stretches * d)?;
    let columns = d.div_ceil(64);
    launch!(gpu, "column_parts", (columns, stretches, 1), 64, 0; x, at(&parts), rows as u32, d as u32);
    launch!(gpu, "add_columns", columns, 64, 0; at(&parts), to, stretches as u32, d as u32);
    Ok(())
}

fn check(rows: &[u32], count: usize, what: &str) -> Result<()> {
    match rows.iter().find(|&&row| row as usize >= count) {
        Some(row) => bail!("{what}: row {row} of {count}"),
        None => Ok(()),
    }
}

/// Adds each row of `dy` to the row of `dx` that it came from, in ascending order: those of one row by one block.
fn scatter(gpu: &Gpu, dy: u64, rows: &[u32], dx: u64, d: usize) -> Result<()> {
    let mut lists: Vec<u32> = (0..rows.len() as u32).collect();
    lists.sort_by_key(|&i| rows[i as usize]);
    let (mut starts, mut targets) = (Vec::new(), Vec::new());
    for (i, &from) in lists.iter().enumerate() {
        let row = rows[from as usize];
        if targets.last() != Some(&row) {
            targets.push(row);
            starts.push(i as u32);
        }
    }
    starts.push(lists.len() as u32);
    let count = targets.len();
    let (lists, starts, targets) = (gpu.upload(&lists)?, gpu.upload(&starts)?, gpu.upload(&targets)?);
    launch!(gpu, "scatter_rows", count, threads(d), 0; dy, at(&lists), at(&starts), at(&targets), dx, d as u32);
    Ok(())
}

/// See [`crate::ops::gather_rows`].
///
/// # Errors
/// A row that does not exist.
pub fn gather_rows(x: &Tensor, rows: &[u32]) -> Result<Tensor> {
    if !on_gpu(&[x]) {
        return slow::gather_rows(x, rows);
    }
    let (gpu, x) = (Gpu::of(x)?, &x.contiguous()?);
    let (count, d) = x.dims2()?;
    check(rows, count, "gather_rows")?;
    let (out, numbers) = (gpu.memory::<f32>(rows.len() * d)?, gpu.told(rows)?);
    launch!(gpu, "gather_f32", rows.len(), threads(d), 0; start(x)?, at(&numbers), at(&out), d as u32);
    let backward = {
        let (gpu, rows) = (gpu.clone(), rows.to_vec());
        move |_: &Tensor, grad: &Tensor| {
            let dx = gpu.zeros::<f32>(count * d)?;
            scatter(&gpu, start(grad)?, &rows, at(&dx), d)?;
            Ok([Some(gpu.tensor(dx, (count, d)))])
        }
    };
    node(&gpu, "gather_rows", [x], out, (rows.len(), d), backward)
}

/// See [`crate::ops::embed`]. Rows are those that products read, so a rounded table gives rounded rows.
///
/// # Errors
/// An id beyond the table.
pub fn embed(table: &Param, ids: &[u32]) -> Result<Tensor> {
    let value = table.value();
    if !on_gpu(&[&value]) {
        return slow::embed(table, ids);
    }
    let gpu = Gpu::of(&value)?;
    let (count, d) = value.dims2()?;
    check(ids, count, "embed")?;
    let (out, numbers, weight) = (gpu.memory::<f32>(ids.len() * d)?, gpu.told(ids)?, Weight::of(table)?);
    let name = weight.kernel("gather_f32", "gather_bf16");
    launch!(gpu, name, ids.len(), threads(d), 0; weight.at, at(&numbers), at(&out), d as u32);
    let backward = {
        let (gpu, table, ids) = (gpu.clone(), table.clone(), ids.to_vec());
        move |_: &Tensor, grad: &Tensor| {
            table.accumulate_on_device(|sums| scatter(&gpu, start(grad)?, &ids, start(sums)?, d))?;
            Ok([None])
        }
    };
    node(&gpu, "embed", [&value], out, (ids.len(), d), backward)
}

/// See [`crate::ops::known`].
///
/// # Errors
/// The device fails.
pub fn known(x: &Tensor, value: f64, gradient: Vec<f64>) -> Result<Tensor> {
    if !on_gpu(&[x]) {
        return slow::known(x, value, gradient);
    }
    let gpu = Gpu::of(x)?;
    let out = gpu.upload(&[value as f32])?;
    let gradient: Vec<f32> = gradient.into_iter().map(|x| x as f32).collect();
    let (of, n) = (gpu.clone(), gradient.len());
    node(&gpu, "known", [x], out, (), move |_, grad| {
        Ok([Some(of.tensor(of.upload(&gradient)?, n).broadcast_mul(grad)?)])
    })
}

/// The first `d` of each row of `x_row` elements, normalised, become the first `d` of a row of `y_row`.
#[derive(Clone, Copy)]
struct Norm {
    rows: usize,
    d: usize,
    x_row: usize,
    y_row: usize,
    eps: f32,
}

impl Norm {
    fn forward(&self, gpu: &Gpu, x: u64, w: u64, y: u64) -> Result<()> {
        let Self { rows, d, x_row, y_row, eps } = *self;
        launch!(gpu, "rms_norm", rows, threads(d), 0; x, w, y, d as u32, x_row as u32, y_row as u32, eps);
        Ok(())
    }

    /// Writes the gradient of x, and adds that of w if it takes one.
    fn backward(&self, gpu: &Gpu, x: u64, dy: u64, w: &Param, dx: u64) -> Result<()> {
        let Self { rows, d, x_row, y_row, eps } = *self;
        let weight = w.value();
        let factors = gpu.memory::<f32>(rows)?;
        launch!(
            gpu, "rms_norm_backward", rows, threads(d), 0;
            x, start(&weight)?, dy, dx, at(&factors), d as u32, x_row as u32, y_row as u32, eps,
        );
        if !w.is_tracked() {
            return Ok(());
        }
        w.accumulate_on_device(|sums| {
            let (stretches, columns) = (rows.div_ceil(STRETCH), d.div_ceil(64));
            let parts = gpu.memory::<f32>(stretches * d)?;
            launch!(
                gpu, "rms_norm_weight", (columns, stretches, 1), 64, 0;
                x, dy, at(&factors), at(&parts), rows as u32, d as u32, x_row as u32, y_row as u32,
            );
            launch!(gpu, "add_columns", columns, 64, 0; at(&parts), start(sums)?, stretches as u32, d as u32);
            Ok(())
        })
    }
}

/// See [`crate::ops::rms_norm`].
///
/// # Errors
/// Shapes that don't fit.
pub fn rms_norm(x: &Tensor, w: &Param, eps: f64) -> Result<Tensor> {
    let weight = w.value();
    if !on_gpu(&[x, &weight]) {
        return slow::rms_norm(x, w, eps);
    }
    let (gpu, x) = (Gpu::of(x)?, &x.contiguous()?);
    let d = w.elem_count();
    if d == 0 || x.dims().last() != Some(&d) {
        bail!("rms_norm: x is {:?}, `{}` {:?}", x.shape(), w.name(), w.shape());
    }
    let norm = Norm { rows: x.elem_count() / d, d, x_row: d, y_row: d, eps: eps as f32 };
    let out = gpu.memory::<f32>(norm.rows * d)?;
    norm.forward(&gpu, start(x)?, start(&weight)?, at(&out))?;
    let backward = {
        let (gpu, x, w) = (gpu.clone(), x.clone(), w.clone());
        move |_: &Tensor, grad: &Tensor| {
            let dx = gpu.memory::<f32>(norm.rows * d)?;
            norm.backward(&gpu, start(&x)?, start(grad)?, &w, at(&dx))?;
            Ok([x.track_op().then(|| gpu.tensor(dx, x.shape())), None])
        }
    };
    node(&gpu, "rms_norm", [x, &weight], out, x.shape(), backward)
}

/// See [`crate::ops::silu_mul`].
///
/// # Errors
/// An odd last dimension.
pub fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    if !on_gpu(&[gate_up]) {
        return slow::silu_mul(gate_up);
    }
    let (gpu, x) = (Gpu::of(gate_up)?, &gate_up.contiguous()?);
    let (rows, both) = x.dims2()?;
    if both == 0 || both % 2 != 0 {
        bail!("silu_mul: gate and up have one width, but together they are {both} wide");
    }
    let (width, count) = (both / 2, rows * both / 2);
    let out = gpu.memory::<f32>(count)?;
    launch!(gpu, "silu_mul", blocks(count), 256, 0; start(x)?, at(&out), count as u64, width as u32);
    let backward = {
        let (gpu, x) = (gpu.clone(), x.clone());
        move |_: &Tensor, grad: &Tensor| {
            let dx = gpu.memory::<f32>(2 * count)?;
            launch!(
                gpu, "silu_mul_backward", blocks(count), 256, 0;
                start(&x)?, start(grad)?, at(&dx), count as u64, width as u32,
            );
            Ok([Some(gpu.tensor(dx, x.shape()))])
        }
    };
    node(&gpu, "silu_mul", [x], out, (rows, width), backward)
}

/// Rotates `width` elements of each head of each row, or turns them back. Rows are of heads of so many elements, in which
/// the rotated ones begin at so many: both of x and of y.
pub(super) fn turn(
    gpu: &Gpu,
    table: &Rope,
    positions: &[u32],
    (x, (x_head, x_at)): (u64, (usize, usize)),
    (y, (y_head, y_at)): (u64, (usize, usize)),
    (heads, width): (usize, usize),
    back: bool,
) -> Result<()> {
    let told = gpu.told(positions)?;
    let sign = if back { -1.0f32 } else { 1.0 };
    launch!(
        gpu, "rope", positions.len(), threads(heads * width / 2), 0;
        x, y, start(&table.cos)?, start(&table.sin)?, at(&told), heads as u32, width as u32,
        x_head as u32, y_head as u32, x_at as u32, y_at as u32, u32::from(table.interleaved), sign,
    );
    Ok(())
}

/// See [`crate::ops::rope`].
///
/// # Errors
/// A position beyond the table, or another width.
pub fn rope(x: &Tensor, positions: &[u32], table: &Arc<Rope>) -> Result<Tensor> {
    if !on_gpu(&[x, &table.cos]) {
        return slow::rope(x, positions, table);
    }
    let (gpu, x) = (Gpu::of(x)?, &x.contiguous()?);
    let (rows, heads, width) = x.dims3()?;
    table.check(width, positions, rows)?;
    let out = gpu.memory::<f32>(x.elem_count())?;
    let sizes = (heads, width);
    turn(&gpu, table, positions, (start(x)?, (width, 0)), (at(&out), (width, 0)), sizes, false)?;
    let backward = {
        let (gpu, positions, table) = (gpu.clone(), positions.to_vec(), table.clone());
        move |_: &Tensor, grad: &Tensor| {
            let dx = gpu.memory::<f32>(rows * heads * width)?;
            turn(&gpu, &table, &positions, (start(grad)?, (width, 0)), (at(&dx), (width, 0)), sizes, true)?;
            Ok([Some(gpu.tensor(dx, (rows, heads, width)))])
        }
    };
    node(&gpu, "rope", [x], out, x.shape(), backward)
}

/// See [`crate::ops::heads`].
///
/// # Errors
/// Shapes that don't fit, or a position beyond the table.
pub fn heads(
    x: &Tensor,
    range: HeadRange,
    norm: Option<(&Param, f64)>,
    rotation: Option<(&[u32], &Arc<Rope>)>,
) -> Result<Tensor> {
    if !on_gpu(&[x]) {
        return slow::heads(x, range, norm, rotation);
    }
    let HeadRange { first, count, width } = range;
    let part = x.narrow(1, first * width, count * width)?.contiguous()?.reshape((x.dim(0)?, count, width))?;
    let normed = match norm {
        Some((weight, eps)) => rms_norm(&part, weight, eps)?,
        None => part,
    };
    match rotation {
        Some((positions, table)) => rope(&normed, positions, table),
        None => Ok(normed),
    }
}

/// See [`crate::ops::latent_key`].
///
/// # Errors
/// Shapes that don't fit, or a position beyond the table.
pub fn latent_key(kv: &Tensor, norm: &Param, eps: f64, positions: &[u32], table: &Arc<Rope>) -> Result<Tensor> {
    let weight = norm.value();
    if !on_gpu(&[kv, &weight, &table.cos]) {
        return slow::latent_key(kv, norm, eps, positions, table);
    }
    let (gpu, kv) = (Gpu::of(kv)?, &kv.contiguous()?);
    let ((rows, row), d) = (kv.dims2()?, norm.elem_count());
    if d == 0 || d > row {
        bail!("latent_key: kv is {:?}, `{}` {:?}", kv.shape(), norm.name(), norm.shape());
    }
    table.check(row - d, positions, rows)?;
    let sizes = Norm { rows, d, x_row: row, y_row: row, eps: eps as f32 };
    let (place, rotated) = ((row, d), (1, row - d));
    let out = gpu.memory::<f32>(rows * row)?;
    sizes.forward(&gpu, start(kv)?, start(&weight)?, at(&out))?;
    turn(&gpu, table, positions, (start(kv)?, place), (at(&out), place), rotated, false)?;
    let backward = {
        let (gpu, kv, norm, positions, table) =
            (gpu.clone(), kv.clone(), norm.clone(), positions.to_vec(), table.clone());
        move |_: &Tensor, grad: &Tensor| {
            let dx = gpu.memory::<f32>(rows * row)?;
            sizes.backward(&gpu, start(&kv)?, start(grad)?, &norm, at(&dx))?;
            turn(&gpu, &table, &positions, (start(grad)?, place), (at(&dx), place), rotated, true)?;
            Ok([kv.track_op().then(|| gpu.tensor(dx, kv.shape())), None])
        }
    };
    node(&gpu, "latent_key", [kv, &weight], out, (rows, 1, row), backward)
}
