//! One value for every element: whatever the threads, the packing, the passes and the cache.
//!
//! That the instruction set changes no bit either is tested inside the crate, which chooses it.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};

use common::network::Network;
use kernels::pool;

/// The number of threads is the process's, and a call that finds the workers busy runs alone: one test at a time.
fn threads(n: usize) -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    pool::set_threads(n);
    guard
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (network, sequences) = (Network::new(), Network::sequences());
    let _guard = threads(1);
    let (forward, gradients) = (network.forward(&sequences), network.gradients(&[&sequences]));
    for n in [2, 3] {
        pool::set_threads(n);
        assert!(network.forward(&sequences) == forward, "{n} threads");
        for (i, (found, expected)) in network.gradients(&[&sequences]).iter().zip(&gradients).enumerate() {
            assert!(found == expected, "{n} threads: parameter {i}");
        }
    }
}

#[test]
fn weights_in_bf16_are_rounded_and_nothing_else() {
    let sequences = Network::sequences();
    let (network, rounded) = (Network::in_bf16(), Network::rounded_to_bf16());
    let _guard = threads(2);
    let forward = network.forward(&sequences);
    assert!(forward == rounded.forward(&sequences));
    assert!(forward != Network::new().forward(&sequences), "bf16 has too few bits for these weights");
    let gradients = network.gradients(&[&sequences]);
    for (i, (found, expected)) in gradients.iter().zip(rounded.gradients(&[&sequences])).enumerate() {
        assert!(*found == expected, "parameter {i}");
    }
}

#[test]
fn a_sequence_alone_has_the_bits_that_it_has_among_others() {
    let (network, sequences) = (Network::new(), Network::sequences());
    let _guard = threads(2);
    let packed = network.forward(&sequences);
    let alone: Vec<_> = sequences.iter().map(|sequence| network.forward(std::slice::from_ref(sequence))).collect();
    for part in 0..2 {
        let alone: Vec<u32> = alone.iter().flat_map(|bits| bits[part].clone()).collect();
        assert!(alone == packed[part], "part {part}");
    }
}

#[test]
fn a_batch_in_passes_has_the_gradient_of_the_whole() {
    let (network, sequences) = (Network::new(), Network::sequences());
    let _guard = threads(2);
    let whole = network.gradients(&[&sequences]);
    for cuts in [&[0, 2, 4][..], &[0, 1, 2, 3, 4]] {
        let passes: Vec<_> = cuts.windows(2).map(|cut| &sequences[cut[0]..cut[1]]).collect();
        for (i, (found, expected)) in network.gradients(&passes).iter().zip(&whole).enumerate() {
            assert!(found == expected, "{} passes: parameter {i}", passes.len());
        }
    }
}

#[test]
fn the_own_backward_pass_gives_the_gradients_of_candles() {
    let (network, sequences) = (Network::new(), Network::sequences());
    let _guard = threads(2);
    let own = network.gradients(&[&sequences]);
    let candles = network.gradients_by(candle_core::Tensor::backward, &[&sequences]);
    for (i, (own, candles)) in own.iter().zip(&candles).enumerate() {
        assert!(own == candles, "parameter {i}");
    }
}

#[test]
fn decoding_with_a_cache_has_the_bits_of_the_whole_sequence() {
    let (network, sequences) = (Network::new(), Network::sequences());
    let _guard = threads(2);
    let [whole, _] = network.forward(&sequences);
    for first in [1, 45, 64] {
        assert!(network.decode(&sequences, first) == whole, "prefix of {first}");
    }
}

#[test]
fn what_is_not_finite_ends_and_stays_in_its_sequence() {
    let sequences = [vec![1, 2, 3, 4], vec![5, 6, 7, 8, 9], vec![10, 11]];
    let _guard = threads(2);
    let payload = f32::from_bits(0x7FC0_0001);
    for poison in [f32::NAN, payload, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let network = Network::new();
        let [_, clean] = network.forward(&sequences);
        network.embed_as(5, poison);
        let [_, poisoned] = network.forward(&sequences);
        assert!(poisoned[..8] == clean[..8] && poisoned[18..] == clean[18..], "{poison}");
        let finite = poisoned[8..18].iter().filter(|bits| f32::from_bits(**bits).is_finite()).count();
        assert!(finite == 0 || poison == f32::MAX, "{poison}: {finite} of 10 are finite");
        network.gradients(&[&sequences]);
        network.decode(&sequences, 2);
    }
}
