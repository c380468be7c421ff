//! Every operation on a GPU against the same on the CPU: outputs and gradients, in f32 and with weights in bf16.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use common::{bits, numbers, param, tensor, values};
use kernels::Param;
use kernels::ops::{self, Experts, HeadRange, LayerCache, Rope, Router, Segment};
use kernels::optim::{AdamW, Moments, grad_squares};

/// The largest difference, relative to the greatest element: of sums in another order, and with both factors of a product
/// rounded to 8 bits.
const TOLERANCE: [(DType, f32); 2] = [(DType::F32, 2e-5), (DType::BF16, 2e-2)];

/// The GPU, or a line that says that there is none.
fn gpu() -> Option<Device> {
    let device = kernels::gpu();
    if let Err(error) = &device {
        println!("skipped: there is no GPU here: {error}");
    }
    device.ok()
}

type Operation<'a> = &'a dyn Fn(&Device, &[Tensor], &[Param]) -> Result<Tensor>;

/// The output, and the gradients of its weighed sum towards inputs and parameters.
fn run(device: &Device, dtype: DType, inputs: &[Tensor], params: &[Param], operation: Operation<'_>) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(&x.to_device(device).unwrap()).unwrap()).collect();
    let inputs: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let own = |param: &Param| {
        let value = param.value().detach().to_device(device).unwrap();
        let rounded = value.rank() > 1 && device.is_cuda();
        let param = Param::new(param.name(), value).unwrap();
        if rounded { param.computing_in(dtype).unwrap() } else { param }
    };
    let params: Vec<Param> = params.iter().map(own).collect();
    let out = operation(device, &inputs, &params).unwrap();
    let weights = tensor(99, out.shape()).to_device(device).unwrap();
    let mut store = (&out * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let mut found = vec![out];
    found.extend(vars.iter().map(|var| store.get(var.as_tensor()).unwrap().clone()));
    for param in &params {
        param.collect(&mut store).unwrap();
        found.push(param.grad().unwrap());
    }
    found.iter().map(|tensor| tensor.to_device(&Device::Cpu).unwrap()).collect()
}

#[track_caller]
fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let (found, expected) = (values(found), values(expected));
    let greatest = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    assert!(greatest > 0.0, "{what}: nothing but zeros proves nothing");
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let finite = found.iter().all(|x| x.is_finite());
    assert!(finite && worst <= tolerance * greatest, "{what}: off by {worst:e} among up to {greatest:e}");
}

/// Holds an operation on the GPU against the CPU, and against itself to the bit.
#[track_caller]
fn check(what: &str, inputs: &[Tensor], params: &[Param], operation: Operation<'_>) {
    let Some(gpu) = gpu() else { return };
    let expected = run(&Device::Cpu, DType::F32, inputs, params, operation);
    for (dtype, tolerance) in TOLERANCE {
        let found = run(&gpu, dtype, inputs, params, operation);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_close(&format!("{what} in {dtype:?}, tensor {i}"), found, expected, tolerance);
        }
        let again = run(&gpu, dtype, inputs, params, operation);
        for (found, again) in found.iter().zip(&again) {
            assert_eq!(bits(found), bits(again), "{what} in {dtype:?} does not repeat");
        }
    }
}

fn rope_of(width: usize, interleaved: bool, device: &Device) -> Arc<Rope> {
    let frequencies: Vec<f64> = (0..width / 2).map(|i| 0.7f64.powi(i as i32)).collect();
    Arc::new(Rope::new(&frequencies, 1.1, 300, interleaved, device).unwrap())
}

fn segments(lengths: &[usize]) -> Arc<[Segment]> {
    let mut start = 0;
    let segment = |(slot, &len): (usize, &usize)| {
        start += len;
        Segment { start: start - len, len, slot }
    };
    lengths.iter().enumerate().map(segment).collect()
}

#[test]
fn products() {
    for (m, n, k) in [(1, 1, 1), (5, 33, 17), (70, 130, 257)] {
        let what = format!("linear {m} {n} {k}");
        check(&what, &[tensor(1, (m, k))], &[param(2, (n, k))], &|_, x, p| ops::linear(&x[0], &p[0], None));
        check(&what, &[tensor(1, (m, k))], &[param(2, (n, k)), param(3, n)], &|_, x, p| {
            ops::linear(&x[0], &p[0], Some(&p[1]))
        });
        let heads = 3;
        check(&what, &[tensor(1, (m, heads, k))], &[param(2, (heads, n, k))], &|_, x, p| {
            ops::head_linear(&x[0], &p[0], false)
        });
        check(&what, &[tensor(1, (m, heads, k))], &[param(2, (heads, k, n))], &|_, x, p| {
            ops::head_linear(&x[0], &p[0], true)
        });
    }
}

#[test]
fn rows() {
    let ids: Vec<u32> = (0..300u32).map(|i| i * i % 40).collect();
    check("gather_rows", &[tensor(1, (40, 130))], &[], &|_, x, _| ops::gather_rows(&x[0], &ids));
    check("embed", &[], &[param(1, (40, 130))], &|_, _, p| ops::embed(&p[0], &ids));
    for (rows, d) in [(3, 5), (70, 33), (200, 300)] {
        check(&format!("rms_norm {d}"), &[tensor(1, (rows, d))], &[param(2, d)], &|_, x, p| {
            ops::rms_norm(&x[0], &p[0], 1e-6)
        });
        check(&format!("silu_mul {d}"), &[tensor(1, (rows, 2 * d))], &[], &|_, x, _| ops::silu_mul(&x[0]));
    }
    let positions: Vec<u32> = (0..50).map(|i| i * 5 % 300).collect();
    for interleaved in [false, true] {
        check("rope", &[tensor(1, (50, 3, 14))], &[], &|device, x, _| {
            ops::rope(&x[0], &positions, &rope_of(14, interleaved, device))
        });
        check("latent_key", &[tensor(1, (50, 30))], &[param(2, 20)], &|device, x, p| {
            ops::latent_key(&x[0], &p[0], 1e-6, &positions, &rope_of(10, interleaved, device))
        });
        check("latent_query", &[tensor(1, (50, 3 * 23))], &[param(2, (3, 13, 20))], &|device, x, p| {
            ops::latent_query(&x[0], &p[0], &positions, &rope_of(10, interleaved, device))
        });
    }
    let range = HeadRange { first: 1, count: 3, width: 14 };
    check("heads", &[tensor(1, (50, 70))], &[param(2, 14)], &|device, x, p| {
        let table = rope_of(14, false, device);
        ops::heads(&x[0], range, Some((&p[0], 1e-6)), Some((&positions, &table)))
    });
    check("known", &[tensor(1, 40)], &[], &|_, x, _| {
        ops::known(&x[0], 0.5, numbers(2, 40).into_iter().map(f64::from).collect())
    });
}

#[test]
fn attention_over_sequences() {
    let heads = [(1, 1, 1, 1), (3, 3, 17, 5), (4, 2, 16, 33), (6, 1, 40, 32), (20, 1, 130, 96)];
    for lengths in [&[2][..], &[5, 1, 0, 40], &[64, 65, 31], &[200]] {
        let (segments, tokens) = (segments(lengths), lengths.iter().sum::<usize>());
        for (heads, groups, dk, dv) in heads {
            let (q, k, v) =
                (tensor(1, (tokens, heads, dk)), tensor(2, (tokens, groups, dk)), tensor(3, (tokens, groups, dv)));
            check(
                &format!("attention {lengths:?} {heads} {groups} {dk} {dv}"),
                &[q.clone(), k.clone(), v],
                &[],
                &|_, x, _| ops::attention(&x[0], &x[1], &x[2], &segments, 0.4, None),
            );
            if dv <= dk {
                check(&format!("latent_attention {lengths:?} {heads} {groups} {dk} {dv}"), &[q, k], &[], &|_, x, _| {
                    ops::latent_attention(&x[0], &x[1], dv, &segments, 0.4, None)
                });
            }
        }
    }
}

#[test]
fn attention_with_a_cache() {
    let Some(gpu) = gpu() else { return };
    let (heads, groups, dk, dv, len, prefix) = (4, 2, 16, 12, 75, 40);
    let on_gpu = |x: Tensor| x.to_device(&gpu).unwrap();
    let q = on_gpu(tensor(1, (len, heads, dk)));
    let (k, v) = (on_gpu(tensor(2, (len, groups, dk))), on_gpu(tensor(3, (len, groups, dv))));
    let part = |x: &Tensor, first: usize, rows: usize| x.narrow(0, first, rows).unwrap().contiguous().unwrap();
    for latent in [false, true] {
        let attend = |first: usize, rows: usize, slot: usize, cache: Option<&mut LayerCache>| {
            let segments: Arc<[Segment]> = [Segment { start: 0, len: rows, slot }].into();
            let (q, k, v) = (part(&q, first, rows), part(&k, first, rows), part(&v, first, rows));
            match latent {
                true => ops::latent_attention(&q, &k, dv, &segments, 0.4, cache).unwrap(),
                false => ops::attention(&q, &k, &v, &segments, 0.4, cache).unwrap(),
            }
        };
        let whole = attend(0, len, 0, None);
        let mut cache = LayerCache::new(3, len, groups, dk, dv);
        attend(0, prefix, 2, Some(&mut cache));
        cache.fork(2, 0);
        cache.clear(2);
        attend(0, 3, 2, Some(&mut cache));
        for row in prefix..len {
            let (found, expected) = (attend(row, 1, 0, Some(&mut cache)), part(&whole, row, 1));
            assert_close(&format!("row {row}, latent {latent}"), &found, &expected, 1e-6);
        }
        let segments: Arc<[Segment]> = [Segment { start: 0, len: 1, slot: 0 }].into();
        let one = |x: &Tensor| part(x, 0, 1);
        assert!(ops::attention(&one(&q), &one(&k), &one(&v), &segments, 0.4, Some(&mut cache)).is_err(), "it is full");
    }
}

#[test]
fn experts() {
    let bias = (tensor(3, 12) * 0.4).unwrap();
    for sigmoid in [false, true] {
        for normalize in [false, true] {
            for (groups, groups_kept) in [(1, 1), (4, 2), (3, 2), (12, 5)] {
                let router = Router { experts: 12, chosen: 4, groups, groups_kept, sigmoid, normalize, scale: 2.5 };
                let logits = (tensor(1, (70, 12)) * 3.0).unwrap();
                let x = tensor(2, (70, 33));
                let params = [param(4, (12, 40, 33)), param(5, (12, 33, 20))];
                let replayed: Vec<u32> = (0..70u32).flat_map(|token| [0, 1, 2, 3].map(|i| i * 3 + token % 3)).collect();
                for replayed in [None, Some(&*replayed)] {
                    check(&format!("{router:?}"), &[logits.clone(), x.clone()], &params, &|device, x, p| {
                        let bias = bias.to_device(device)?;
                        let (experts, weights) = ops::route(&x[0], Some(&bias), &router, replayed)?;
                        let inner = ops::grouped_linear(&ops::to_experts(&x[1], &experts)?, &p[0], &experts)?;
                        let outputs = ops::grouped_linear(&ops::silu_mul(&inner)?, &p[1], &experts)?;
                        ops::combine(&outputs, &weights, &experts)
                    });
                }
                let Some(gpu) = gpu() else { return };
                let logits = (tensor(1, (700, 12)) * 3.0).unwrap();
                let choose = |device: &Device| -> Arc<Experts> {
                    let logits = logits.to_device(device).unwrap();
                    ops::route(&logits, Some(&bias.to_device(device).unwrap()), &router, None).unwrap().0
                };
                let (on_gpu, on_cpu) = (choose(&gpu), choose(&Device::Cpu));
                let twice = ops::chosen(&[on_gpu.clone(), on_gpu]).unwrap();
                let expected = ops::chosen(&[on_cpu]).unwrap().remove(0);
                assert_eq!(twice, [expected.clone(), expected], "{router:?}");
            }
        }
    }
}

#[test]
fn log_probabilities() {
    for (n, d, vocab) in [(1, 3, 2), (33, 40, 1000), (90, 17, 50)] {
        let targets: Vec<u32> = (0..n as u32).map(|i| i * 7 % vocab as u32).collect();
        check(&format!("token_logprobs {n} {d} {vocab}"), &[tensor(1, (n, d))], &[param(2, (vocab, d))], &|_, x, p| {
            ops::token_logprobs(&x[0], &p[0], &targets, 0.7)
        });
    }
}

#[test]
fn an_optimiser_step() {
    let Some(gpu) = gpu() else { return };
    let constants = AdamW {
        lr: 3e-3,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        bias_correction1: 0.1,
        bias_correction2: 0.05,
        grad_scale: 0.7,
    };
    let step = |device: &Device, n: usize| {
        let param = Param::new("w", tensor(1, (n, 70)).to_device(device).unwrap()).unwrap();
        let mut moments = Moments::zeros(&param).unwrap();
        let x = tensor(2, (30, 70)).to_device(device).unwrap();
        let mut sums = Vec::new();
        for _ in 0..3 {
            param.zero_grad();
            let y = ops::linear(&x, &param, None).unwrap();
            let loss = (&y * tensor(3, y.shape()).to_device(device).unwrap()).unwrap().sum_all().unwrap();
            let mut store = kernels::backward(&loss).unwrap();
            param.collect(&mut store).unwrap();
            sums.push(grad_squares(&[&param]).unwrap()[0].unwrap());
            param.adamw(&mut moments, &constants).unwrap();
        }
        let state = moments.tensors(&[n, 70]).unwrap();
        moments.load([&state[0], &state[1]]).unwrap();
        param.zero_grad();
        assert_eq!(grad_squares(&[&param]).unwrap(), [None]);
        let [mean, square] = state;
        (sums, [param.value().to_device(&Device::Cpu).unwrap(), mean, square])
    };
    for n in [1, 300] {
        let ((sums, found), (expected_sums, expected)) = (step(&gpu, n), step(&Device::Cpu, n));
        for (sum, expected) in sums.iter().zip(&expected_sums) {
            assert!((sum / expected - 1.0).abs() < 1e-5, "{sum} instead of {expected}");
        }
        for (what, (found, expected)) in ["value", "mean", "square"].iter().zip(found.iter().zip(&expected)) {
            assert_close(what, found, expected, 1e-5);
        }
    }
}
