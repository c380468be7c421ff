//! Sums, parts and views against their twins, and the walk through graphs that are fused in part only.

mod common;

use candle_core::{DType, Tensor, Var};
use common::{bits, check, check_empty, param, tensor, values};
use kernels::ops::{self, slow};

#[test]
fn add_is_its_twin() {
    for shape in [&[1][..], &[3, 17], &[2, 3, 5], &[300, 250]] {
        check(
            &format!("add {shape:?}"),
            &[tensor(1, shape), tensor(2, shape)],
            &[],
            &|x, _| ops::add(&x[0], &x[1]),
            &|x, _| slow::add(&x[0], &x[1]),
        );
    }
    let twice = |add: fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>| {
        move |x: &[Tensor], _: &[kernels::Param]| add(&x[0], &add(&x[0], &x[0])?)
    };
    check("add to itself", &[tensor(1, 5)], &[], &twice(ops::add), &twice(slow::add));
    check_empty("add nothing", &[tensor(1, (0, 3)), tensor(2, (0, 3))], &[], &|x, _| ops::add(&x[0], &x[1]), &[0, 3]);
    assert!(ops::add(&tensor(1, (3, 4)), &tensor(2, (4, 3))).is_err());
}

#[test]
fn column_is_its_twin() {
    for (rows, columns, i) in [(1, 1, 0), (7, 3, 2), (40, 2, 1)] {
        let x = tensor(1, (rows, columns));
        check(&format!("column {i}"), &[x], &[], &|x, _| ops::column(&x[0], i), &|x, _| slow::column(&x[0], i));
    }
    assert!(ops::column(&tensor(1, (3, 2)), 2).is_err());
}

#[test]
fn reshape_is_candles() {
    check(
        "reshape twice",
        &[tensor(1, (4, 6))],
        &[],
        &|x, _| ops::reshape(&ops::reshape(&ops::add(&x[0], &x[0])?, (3, 8))?, 24),
        &|x, _| (&x[0] + &x[0])?.reshape((3, 8))?.reshape(24),
    );
    check(
        "reshape of a transpose",
        &[tensor(1, (4, 6))],
        &[],
        &|x, _| ops::reshape(&ops::add(&x[0], &x[0])?.t()?, 24),
        &|x, _| (&x[0] + &x[0])?.t()?.reshape(24),
    );
    assert!(ops::reshape(&tensor(1, (4, 6)), 23).is_err());
}

#[test]
fn a_known_function_has_its_value_and_gradient() {
    let gradient = vec![0.5, -1.0, 2.0];
    for dtype in [DType::F32, DType::F64] {
        let x = Var::from_tensor(&tensor(1, 3).to_dtype(dtype).unwrap()).unwrap();
        let loss = ops::known(&x, 7.25, gradient.clone()).unwrap();
        assert_eq!(loss.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap(), 7.25);
        for walk in [kernels::backward, Tensor::backward] {
            let found = walk(&(&loss * 2.0).unwrap()).unwrap().get(&x).unwrap().to_dtype(DType::F64).unwrap();
            assert_eq!(found.to_vec1::<f64>().unwrap(), [1.0, -2.0, 4.0]);
        }
        assert!(ops::known(&x, 0.0, vec![1.0]).is_err());
    }
}

#[test]
fn a_graph_may_mix_fused_and_other_operations_and_be_walked_again() {
    let (x, w) = (Var::from_tensor(&tensor(1, (5, 17))).unwrap(), param(2, (33, 17)));
    let fused =
        ops::known(&ops::reshape(&ops::linear(&x, &w, None).unwrap(), 165).unwrap(), 0.0, vec![1.0; 165]).unwrap();
    let mixed = ops::linear(&x, &w, None).unwrap().sum_all().unwrap();
    let mut seen = Vec::new();
    for loss in [&fused, &mixed, &fused] {
        w.zero_grad();
        let mut store = kernels::backward(loss).unwrap();
        w.collect(&mut store).unwrap();
        seen.push([bits(store.get(&x).unwrap()), bits(&w.grad().unwrap())]);
    }
    assert!(seen.iter().all(|found| *found == seen[0]));
    assert!(values(&w.grad().unwrap()).iter().any(|x| *x != 0.0));
}
