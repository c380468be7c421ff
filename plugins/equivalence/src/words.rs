//! Words that mean something in an answer: functions, units, conjunctions.

use crate::tree::Function;

/// A function by its name, with or without a backslash.
pub fn function(name: &str) -> Option<Function> {
    Some(match name {
        "sin" => Function::Sin,
        "cos" => Function::Cos,
        "tan" | "tg" => Function::Tan,
        "cot" | "ctg" => Function::Cot,
        "sec" => Function::Sec,
        "csc" | "cosec" => Function::Csc,
        "arcsin" | "asin" => Function::Asin,
        "arccos" | "acos" => Function::Acos,
        "arctan" | "atan" | "arctg" => Function::Atan,
        "arccot" | "acot" => Function::Acot,
        "arcsec" | "asec" => Function::Asec,
        "arccsc" | "acsc" => Function::Acsc,
        "sinh" => Function::Sinh,
        "cosh" => Function::Cosh,
        "tanh" => Function::Tanh,
        "arcsinh" | "arsinh" | "asinh" => Function::Asinh,
        "arccosh" | "arcosh" | "acosh" => Function::Acosh,
        "arctanh" | "artanh" | "atanh" => Function::Atanh,
        "ln" => Function::Ln,
        "abs" => Function::Abs,
        "floor" => Function::Floor,
        "ceil" | "ceiling" => Function::Ceil,
        "factorial" => Function::Factorial,
        "binomial" => Function::Binomial,
        "gcd" => Function::Gcd,
        "lcm" => Function::Lcm,
        "min" => Function::Min,
        "max" => Function::Max,
        "Re" => Function::Re,
        "Im" => Function::Im,
        "arg" | "Arg" => Function::Arg,
        "det" => Function::Det,
        _ => return None,
    })
}

/// Whether the function takes an angle.
pub fn takes_angle(function: Function) -> bool {
    matches!(function, Function::Sin | Function::Cos | Function::Tan | Function::Cot | Function::Sec | Function::Csc)
}

/// What a trigonometric function with the exponent -1 means.
pub fn inverse(function: Function) -> Option<Function> {
    Some(match function {
        Function::Sin => Function::Asin,
        Function::Cos => Function::Acos,
        Function::Tan => Function::Atan,
        Function::Cot => Function::Acot,
        Function::Sec => Function::Asec,
        Function::Csc => Function::Acsc,
        Function::Sinh => Function::Asinh,
        Function::Cosh => Function::Acosh,
        Function::Tanh => Function::Atanh,
        _ => return None,
    })
}

/// Greek letters and other signs that name a variable.
pub fn is_symbol_command(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "vartheta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "omicron",
        "varpi",
        "rho",
        "varrho",
        "sigma",
        "varsigma",
        "tau",
        "upsilon",
        "phi",
        "varphi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Pi",
        "Sigma",
        "Upsilon",
        "Phi",
        "Psi",
        "Omega",
        "ell",
        "hbar",
        "aleph",
        "angle",
        "triangle",
        "nabla",
        "partial",
        "imath",
        "jmath",
        "clubsuit",
        "heartsuit",
        "spadesuit",
        "diamondsuit",
        "square",
        "odot",
        "oplus",
    ];
    NAMES.contains(&name)
}

/// Whether the word is a unit of measurement, or a word that stands beside one.
pub fn is_unit(word: &str) -> bool {
    // Sorted, for the binary search.
    const UNITS: &[&str] = &[
        "acre",
        "ampere",
        "apple",
        "area",
        "ball",
        "bit",
        "book",
        "box",
        "bushel",
        "byte",
        "car",
        "card",
        "cc",
        "cent",
        "centimeter",
        "centimetre",
        "child",
        "children",
        "circle",
        "cm",
        "coin",
        "cookie",
        "cube",
        "cubic",
        "cup",
        "day",
        "decibel",
        "deg",
        "degree",
        "digit",
        "dm",
        "dollar",
        "dozen",
        "dp",
        "edge",
        "egg",
        "element",
        "euro",
        "face",
        "feet",
        "foot",
        "ft",
        "gal",
        "gallon",
        "gm",
        "gram",
        "hectare",
        "hertz",
        "hour",
        "hr",
        "hrs",
        "hz",
        "inch",
        "inche",
        "integer",
        "joule",
        "kelvin",
        "kg",
        "kilogram",
        "kilometer",
        "kilometre",
        "km",
        "kmh",
        "kmph",
        "kph",
        "lb",
        "liter",
        "litre",
        "marble",
        "men",
        "meter",
        "metre",
        "mg",
        "mi",
        "mile",
        "min",
        "minute",
        "ml",
        "mm",
        "mole",
        "month",
        "mph",
        "newton",
        "ohm",
        "ounce",
        "oz",
        "page",
        "pencil",
        "people",
        "per",
        "person",
        "pie",
        "pm",
        "point",
        "pound",
        "problem",
        "quart",
        "rad",
        "radian",
        "rupee",
        "sec",
        "second",
        "side",
        "solution",
        "sq",
        "square",
        "student",
        "tile",
        "time",
        "ton",
        "unit",
        "vertice",
        "volt",
        "watt",
        "way",
        "week",
        "women",
        "yard",
        "yd",
        "year",
        "yen",
        "yr",
        "yuan",
    ];
    let lower = word.to_ascii_lowercase();
    let known = |word: &str| UNITS.binary_search(&word).is_ok();
    known(&lower) || lower.strip_suffix('s').is_some_and(known)
}

/// Units of a single letter, which count only after a space.
pub fn is_letter_unit(word: &str) -> bool {
    matches!(word, "m" | "g" | "s" | "h" | "l" | "L" | "V" | "W" | "J" | "N")
}

/// Whether the word says that a hundredth is meant.
pub fn is_percent(word: &str) -> bool {
    matches!(
        word.trim().to_ascii_lowercase().as_str(),
        "%" | "percent" | "percents" | "percentage" | "pct" | "\\%" | "per cent"
    )
}

/// Whether a text between two answers only joins them.
pub fn joins(text: &str) -> bool {
    let text = text.trim().trim_start_matches(',').trim();
    matches!(text, "and" | "or" | "And" | "Or" | "AND" | "OR" | "," | ";" | "" | "&")
        || text.strip_suffix(',').is_some_and(|rest| !rest.is_empty() && joins(rest))
}

/// Whether a text introduces a condition that is no part of the answer.
pub fn begins_condition(text: &str) -> bool {
    let first = text.trim().split_ascii_whitespace().next().unwrap_or_default();
    matches!(
        first.trim_end_matches([',', ':']),
        "if" | "for"
            | "where"
            | "when"
            | "with"
            | "such"
            | "whenever"
            | "otherwise"
            | "as"
            | "is"
            | "are"
            | "on"
            | "in"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_in_singular_and_plural() {
        for word in ["cm", "miles", "Dollars", "people", "inches", "years", "degrees", "feet", "units", "yuan"] {
            assert!(is_unit(word), "{word}");
        }
        for word in ["x", "pi", "odd", "sin", "xy"] {
            assert!(!is_unit(word), "{word}");
        }
    }
}
