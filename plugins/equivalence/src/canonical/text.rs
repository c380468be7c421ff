//! Forms as text that parses to the same form.

use std::fmt::Write as _;

use num_traits::{One, Signed};

use super::Canonical;
use super::polynomial::{Exponent, Generator, Monomial, Polynomial};

impl Canonical {
    /// The form as text that parses to the same form.
    pub fn print(&self) -> String {
        let mut text = String::new();
        if self.below.is_one() {
            print_polynomial(&self.above, &mut text);
        } else {
            text.push('(');
            print_polynomial(&self.above, &mut text);
            text.push_str(")/(");
            print_polynomial(&self.below, &mut text);
            text.push(')');
        }
        text
    }
}

fn print_polynomial(polynomial: &Polynomial, text: &mut String) {
    if polynomial.0.is_empty() {
        text.push('0');
        return;
    }
    // Terms with variables first, as they are usually written.
    for (i, (monomial, coefficient)) in polynomial.0.iter().rev().enumerate() {
        let is_negative = coefficient.is_negative();
        if is_negative {
            text.push_str(if i == 0 { "-" } else { " - " });
        } else if i > 0 {
            text.push_str(" + ");
        }
        let size = coefficient.abs();
        if monomial.is_empty() {
            let _ = write!(text, "{size}");
            continue;
        }
        if !size.numer().is_one() {
            let _ = write!(text, "{}*", size.numer());
        }
        print_monomial(monomial, text);
        if !size.denom().is_one() {
            let _ = write!(text, "/{}", size.denom());
        }
    }
}

fn print_monomial(monomial: &Monomial, text: &mut String) {
    for (i, (generator, exponent)) in monomial.iter().enumerate() {
        if i > 0 {
            text.push('*');
        }
        match generator {
            Generator::Prime(prime) if *exponent == Exponent(1, 2) => {
                let _ = write!(text, "sqrt({prime})");
                continue;
            }
            Generator::Prime(prime) => {
                let _ = write!(text, "{prime}");
            }
            Generator::Name(name) => text.push_str(&name_text(name)),
            Generator::Opaque(name) => text.push_str(name),
            Generator::Pi => text.push_str("pi"),
            Generator::E => text.push('e'),
            Generator::I => text.push('i'),
        }
        if *exponent != Exponent::ONE {
            if exponent.is_integer() && exponent.0 > 0 {
                let _ = write!(text, "^{}", exponent.0);
            } else if exponent.is_integer() {
                let _ = write!(text, "^({})", exponent.0);
            } else {
                let _ = write!(text, "^({}/{})", exponent.0, exponent.1);
            }
        }
    }
}

/// A variable's name as the parser reads it.
pub fn name_text(name: &str) -> String {
    if let Some(letters) = name.strip_prefix("bar_") {
        return format!("\\overline{{{letters}}}");
    }
    let first = match name.strip_prefix('\\') {
        Some(command) => 1 + command.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(command.len()),
        None => name.chars().next().map_or(0, char::len_utf8),
    };
    let (letter, mark) = name.split_at(first);
    let is_mark = mark.is_empty()
        || mark.starts_with(['_', '\'']) && mark.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '\''));
    if name == "..." || is_mark && letter.len() != 1 + usize::from(letter == "\\") {
        return name.to_owned();
    }
    if is_mark && letter.chars().all(char::is_alphabetic) {
        return match mark.strip_prefix('_') {
            // More than one sign is a group.
            Some(below) if below.chars().count() > 1 => format!("{letter}_{{{below}}}"),
            _ => name.to_owned(),
        };
    }
    format!("\\text{{{name}}}")
}
