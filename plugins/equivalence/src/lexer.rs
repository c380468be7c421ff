//! Text to tokens. What only changes how a formula looks is dropped here.

/// A piece of a formula.
#[derive(Clone, Debug, PartialEq)]
pub enum Token<'a> {
    /// Digits before and after the decimal point, and the exponent of ten.
    Number {
        /// Digits without separators.
        whole: String,
        /// Digits after the point, if there was one.
        fraction: Option<&'a str>,
        /// After an `e`, as in `1.5e3`.
        exponent: i64,
    },
    /// Adjacent letters.
    Word(&'a str),
    /// `\name`, without the backslash.
    Command(&'a str),
    /// What `\text{..}` and its like hold, trimmed.
    Text(&'a str),
    /// Any other character; look-alikes are made one.
    Sign(char),
    /// `\\`, which ends a row.
    RowEnd,
}

/// A token, and whether white space stood before it.
#[derive(Clone, Debug)]
pub struct Lexeme<'a> {
    /// The token.
    pub token: Token<'a>,
    /// Whether white space stood before it.
    pub is_spaced: bool,
    /// Where it begins.
    pub at: usize,
    /// Where it ends.
    pub end: usize,
}

/// Tokens at most: a longer formula is no final answer.
pub const MOST_TOKENS: usize = 4000;

/// The tokens of a formula; `None` if there are too many.
pub fn tokens(text: &str) -> Option<Vec<Lexeme<'_>>> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, brackets: Vec::new() };
    let mut tokens: Vec<Lexeme<'_>> = Vec::new();
    loop {
        let start = lexer.at;
        let is_spaced = lexer.skip_space() && start > 0;
        let at = lexer.at;
        match lexer.next() {
            None => return Some(tokens),
            Some(None) => {}
            Some(Some(token)) => {
                if tokens.len() == MOST_TOKENS {
                    return None;
                }
                tokens.push(Lexeme { token, is_spaced, at, end: lexer.at });
            }
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// For each open bracket, whether a comma separates its elements for certain.
    brackets: Vec<bool>,
}

/// Commands that only space or style.
const SILENT: &[&str] = &[
    "left",
    "right",
    "mleft",
    "mright",
    "middle",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "biggl",
    "biggr",
    "Biggl",
    "Biggr",
    "quad",
    "qquad",
    "displaystyle",
    "textstyle",
    "scriptstyle",
    "limits",
    "nolimits",
    "hfill",
    "hline",
    "thinspace",
    "medspace",
    "thickspace",
    "enspace",
    "hspace",
    "bf",
    "rm",
    "it",
    "boldsymbol",
    "phantom",
    "hphantom",
    "vphantom",
    "mathbf",
    "mathit",
    "mathcal",
    "mathscr",
    "mathfrak",
    "bm",
    "ensuremath",
    "nonumber",
    "noindent",
];

/// Commands whose braces hold words.
const TEXTS: &[&str] =
    &["text", "textbf", "textit", "textrm", "textnormal", "textsf", "texttt", "mbox", "mathrm", "hbox", "operatorname"];

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_space(&mut self) -> bool {
        let start = self.at;
        while let Some(byte) = self.bytes.get(self.at) {
            if byte.is_ascii_whitespace() || *byte == b'~' {
                self.at += 1;
            } else if self.bytes[self.at..].starts_with("\u{a0}".as_bytes()) {
                self.at += 2;
            } else {
                break;
            }
        }
        self.at > start
    }

    /// The next token, `Some(None)` for what is dropped, `None` at the end.
    #[allow(clippy::option_option, reason = "an end and nothing are two things")]
    fn next(&mut self) -> Option<Option<Token<'a>>> {
        let byte = *self.bytes.get(self.at)?;
        if byte.is_ascii_digit() || byte == b'.' && self.peek(1).is_ascii_digit() {
            return Some(Some(self.number()));
        }
        if byte.is_ascii_alphabetic() {
            let start = self.at;
            while self.peek(0).is_ascii_alphabetic() {
                self.at += 1;
            }
            return Some(Some(Token::Word(&self.text[start..self.at])));
        }
        if byte == b'\\' {
            return Some(self.command());
        }
        let sign = self.text[self.at..].chars().next()?;
        self.at += sign.len_utf8();
        Some(match sign {
            '$' | '€' | '£' | '¥' | '₹' | '"' | '\u{200b}' | '\u{2061}' | '\u{2062}' | '\u{feff}' => None,
            '(' | '[' => {
                self.brackets.push(true);
                Some(Token::Sign(sign))
            }
            '{' => {
                self.brackets.push(false);
                Some(Token::Sign(sign))
            }
            ')' | ']' | '}' => {
                self.brackets.pop();
                Some(Token::Sign(sign))
            }
            _ => Some(unified(sign)),
        })
    }

    fn digits(&self, from: usize) -> usize {
        self.bytes[from.min(self.bytes.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    fn number(&mut self) -> Token<'a> {
        let text = self.text;
        let n = self.digits(self.at);
        let mut whole = text[self.at..self.at + n].to_owned();
        self.at += n;
        let separates = self.brackets.last().copied().unwrap_or(false);
        if (1..=3).contains(&n) {
            // Separators between thousands stand before exactly three digits.
            const SEPARATORS: [&str; 8] = ["{,}", ",\\!", "\\,", "\\!", "\\ ", "\u{2009}", ",", " "];
            while let Some(separator) = SEPARATORS.iter().find(|sign| text[self.at..].starts_with(**sign)) {
                let mut from = self.at + separator.len();
                if *separator == ",\\!" {
                    from += self.bytes[from..].iter().take_while(|byte| **byte == b' ').count();
                }
                let is_plain = *separator == "," || *separator == " ";
                if is_plain && separates || self.digits(from) != 3 {
                    break;
                }
                whole.push_str(&text[from..from + 3]);
                self.at = from + 3;
            }
        }
        let mut fraction = None;
        if self.peek(0) == b'.' {
            let n = self.digits(self.at + 1);
            if n > 0 {
                fraction = Some(&text[self.at + 1..self.at + 1 + n]);
                self.at += 1 + n;
            } else if self.at + 1 == self.bytes.len() || !matches!(self.peek(1), b'.') {
                self.at += 1; // "42." at the end of a sentence
            }
        }
        let mut exponent = 0;
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            let n = self.digits(self.at + 1 + sign);
            let end = self.at + 1 + sign + n;
            if (1..=6).contains(&n) && !self.bytes.get(end).is_some_and(u8::is_ascii_alphanumeric) {
                exponent = text[self.at + 1..end].trim_start_matches('+').parse().unwrap_or(0);
                self.at = end;
            }
        }
        Token::Number { whole, fraction, exponent }
    }

    fn command(&mut self) -> Option<Token<'a>> {
        let text = self.text;
        let start = self.at + 1;
        let n = self.bytes[start..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        if n == 0 {
            let sign = text[start..].chars().next();
            self.at = start + sign.map_or(0, char::len_utf8);
            return match sign {
                // `\\frac` is a command that was escaped twice.
                Some('\\') if self.peek(0).is_ascii_alphabetic() && !text.contains("\\begin") => {
                    self.at -= 1;
                    self.command()
                }
                Some('\\') => Some(Token::RowEnd),
                Some('{') => {
                    self.brackets.push(true);
                    Some(Token::Command("{"))
                }
                Some('}') => {
                    self.brackets.pop();
                    Some(Token::Command("}"))
                }
                Some('|') => Some(Token::Command("|")),
                Some('(') => {
                    self.brackets.push(true);
                    Some(Token::Sign('('))
                }
                Some(')') => {
                    self.brackets.pop();
                    Some(Token::Sign(')'))
                }
                Some('%') => Some(Token::Sign('%')),
                Some('&') => Some(Token::Word("and")),
                Some('#') => Some(Token::Sign('#')),
                _ => None,
            };
        }
        let mut name = &text[start..start + n];
        // `\quadx` was meant as two.
        if let Some(space) = ["qquad", "quad"].iter().find(|space| name.starts_with(**space)) {
            name = space;
        }
        self.at = start + name.len();
        if SILENT.contains(&name) {
            // `\left.` and `\right.` stand for nothing.
            if matches!(name, "left" | "right") && self.peek(0) == b'.' {
                self.at += 1;
            }
            return None;
        }
        if TEXTS.contains(&name) {
            self.skip_space();
            if let Some(inside) = self.braced() {
                return Some(Token::Text(inside.trim()));
            }
            return None;
        }
        if name == "mathbb" {
            self.skip_space();
            let set = match self.braced() {
                Some(inside) => inside.trim(),
                None => {
                    let sign = text[self.at..].chars().next().map_or(0, char::len_utf8);
                    self.at += sign;
                    &text[self.at - sign..self.at]
                }
            };
            return Some(match set {
                "R" => Token::Command("Reals"),
                "N" => Token::Command("Naturals"),
                "Z" => Token::Command("Integers"),
                "Q" => Token::Command("Rationals"),
                "C" => Token::Command("Complexes"),
                other => Token::Text(other),
            });
        }
        Some(match name {
            "dfrac" | "tfrac" | "cfrac" => Token::Command("frac"),
            "le" | "leq" | "leqslant" => Token::Sign('≤'),
            "ge" | "geq" | "geqslant" => Token::Sign('≥'),
            "lt" => Token::Sign('<'),
            "gt" => Token::Sign('>'),
            "ne" | "neq" => Token::Sign('≠'),
            "approx" | "simeq" | "thickapprox" => Token::Sign('≈'),
            "times" | "cdot" | "ast" | "star" | "bullet" => Token::Sign('*'),
            "div" => Token::Sign('÷'),
            "lbrace" => {
                self.brackets.push(true);
                Token::Command("{")
            }
            "rbrace" => {
                self.brackets.pop();
                Token::Command("}")
            }
            "lbrack" => Token::Sign('['),
            "rbrack" => Token::Sign(']'),
            "vert" | "lvert" | "rvert" | "mid" => Token::Sign('|'),
            "lVert" | "rVert" | "Vert" => Token::Command("|"),
            "colon" => Token::Sign(':'),
            "land" | "wedge" => Token::Word("and"),
            "lor" | "vee" => Token::Word("or"),
            "varnothing" => Token::Command("emptyset"),
            "degree" => Token::Command("circ"),
            "dots" | "cdots" | "ldots" | "dotsc" | "dotsb" => Token::Command("dots"),
            "overline" | "bar" | "vec" | "hat" | "widehat" | "tilde" | "widetilde" | "overrightarrow" | "underline"
            | "dot" => Token::Command("accent"),
            other => Token::Command(other),
        })
    }

    /// What the braces that begin here hold.
    fn braced(&mut self) -> Option<&'a str> {
        if self.peek(0) != b'{' {
            return None;
        }
        let inside = &self.text[self.at + 1..];
        let mut depth = 1;
        for (i, byte) in inside.bytes().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.at += i + 2;
                return Some(&inside[..i]);
            }
        }
        self.at = self.text.len();
        Some(inside)
    }
}

/// One token for characters that look or mean the same.
fn unified(sign: char) -> Token<'static> {
    Token::Sign(match sign {
        '\u{2212}' | '\u{2013}' | '\u{2010}' | '\u{2011}' | '\u{2014}' => '-',
        '×' | '·' | '⋅' | '∙' | '✕' => '*',
        '∕' | '⁄' => '/',
        '≦' | '⩽' => '≤',
        '≧' | '⩾' => '≥',
        '≃' | '≅' => '≈',
        '，' | '、' => ',',
        '；' => ';',
        '：' => ':',
        '（' => '(',
        '）' => ')',
        '％' => '%',
        '′' | '’' => '\'',
        'π' => return Token::Command("pi"),
        '∞' => return Token::Command("infty"),
        '√' => return Token::Command("sqrt"),
        '±' => return Token::Command("pm"),
        '∓' => return Token::Command("mp"),
        '∈' => return Token::Command("in"),
        '∉' => return Token::Command("notin"),
        '∪' => return Token::Command("cup"),
        '∩' => return Token::Command("cap"),
        '∅' => return Token::Command("emptyset"),
        'ℝ' => return Token::Command("Reals"),
        'ℤ' => return Token::Command("Integers"),
        'ℕ' => return Token::Command("Naturals"),
        'ℚ' => return Token::Command("Rationals"),
        'ℂ' => return Token::Command("Complexes"),
        'α' => return Token::Command("alpha"),
        'β' => return Token::Command("beta"),
        'γ' => return Token::Command("gamma"),
        'δ' => return Token::Command("delta"),
        'ε' => return Token::Command("epsilon"),
        'θ' => return Token::Command("theta"),
        'λ' => return Token::Command("lambda"),
        'μ' => return Token::Command("mu"),
        'ρ' => return Token::Command("rho"),
        'σ' => return Token::Command("sigma"),
        'τ' => return Token::Command("tau"),
        'φ' | 'ϕ' => return Token::Command("phi"),
        'ω' => return Token::Command("omega"),
        'Δ' => return Token::Command("Delta"),
        'Σ' => return Token::Command("Sigma"),
        'Ω' => return Token::Command("Omega"),
        '°' => return Token::Command("circ"),
        '…' => return Token::Command("dots"),
        '⌊' => return Token::Command("lfloor"),
        '⌋' => return Token::Command("rfloor"),
        '⌈' => return Token::Command("lceil"),
        '⌉' => return Token::Command("rceil"),
        other => other,
    })
}
