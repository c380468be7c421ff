//! Memory that a thread keeps for its next call.

use std::cell::RefCell;

thread_local! {
    static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Gives `f` slices of the lengths asked for. What they hold is left over from before. A call inside `f` gets memory of
/// its own.
pub(crate) fn with<const N: usize, T>(lengths: [usize; N], f: impl FnOnce([&mut [f32]; N]) -> T) -> T {
    let total: usize = lengths.iter().map(|length| length.next_multiple_of(16)).sum();
    let mut buffer = BUFFER
        .with(|buffer| buffer.try_borrow_mut().map(|mut buffer| std::mem::take(&mut *buffer)).unwrap_or_default());
    if buffer.len() < total {
        buffer.resize(total, 0.0);
    }
    let mut rest = buffer.as_mut_slice();
    let slices = lengths.map(|length| {
        let (slice, others) = std::mem::take(&mut rest).split_at_mut(length.next_multiple_of(16));
        rest = others;
        &mut slice[..length]
    });
    let result = f(slices);
    BUFFER.with(|kept| {
        if let Ok(mut kept) = kept.try_borrow_mut()
            && kept.len() < buffer.len()
        {
            *kept = buffer;
        }
    });
    result
}
