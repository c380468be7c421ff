//! Scripts, and the languages that are written in them.

use whatlang::Lang;

/// A script, as far as languages are told apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    Latin,
    Cyrillic,
    Greek,
    Arabic,
    Hebrew,
    Devanagari,
    Bengali,
    Tamil,
    Telugu,
    Thai,
    Georgian,
    Armenian,
    Han,
    Kana,
    Hangul,
    /// Letters of any other script.
    Other,
}

impl Script {
    /// The script of a letter; `None` if the character is no letter.
    pub fn of(c: char) -> Option<Self> {
        Some(match c {
            'a'..='z' | 'A'..='Z' => Self::Latin,
            '\0'..='\u{a9}' => return None,
            _ if !c.is_alphabetic() => return None,
            '\u{aa}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' | 'Ａ'..='Ｚ' | 'ａ'..='ｚ' => Self::Latin,
            '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Self::Greek,
            '\u{400}'..='\u{52f}' => Self::Cyrillic,
            '\u{530}'..='\u{58f}' => Self::Armenian,
            '\u{590}'..='\u{5ff}' => Self::Hebrew,
            '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' => {
                Self::Arabic
            }
            '\u{900}'..='\u{97f}' => Self::Devanagari,
            '\u{980}'..='\u{9ff}' => Self::Bengali,
            '\u{b80}'..='\u{bff}' => Self::Tamil,
            '\u{c00}'..='\u{c7f}' => Self::Telugu,
            '\u{e00}'..='\u{e7f}' => Self::Thai,
            '\u{10a0}'..='\u{10ff}' => Self::Georgian,
            '\u{1100}'..='\u{11ff}' | '\u{ac00}'..='\u{d7a3}' => Self::Hangul,
            '\u{3040}'..='\u{30ff}' => Self::Kana,
            _ if common::words::is_han(c) => Self::Han,
            _ => Self::Other,
        })
    }

    /// The letters that make a word where no space stands between words; 0 where spaces do.
    pub fn letters_of_a_word(self) -> usize {
        match self {
            Self::Han | Self::Kana => 2,
            Self::Thai => 4,
            _ => 0,
        }
    }
}

/// A language: its ISO 639-1 code, its scripts, and its name for the detector.
#[derive(Debug)]
pub struct Language {
    pub code: &'static str,
    pub scripts: &'static [Script],
    pub lang: Lang,
}

const fn language(code: &'static str, scripts: &'static [Script], lang: Lang) -> Language {
    Language { code, scripts, lang }
}

/// All that are known, by their codes.
pub const LANGUAGES: [Language; 38] = {
    use Script::*;
    [
        language("ar", &[Arabic], Lang::Ara),
        language("bg", &[Cyrillic], Lang::Bul),
        language("bn", &[Bengali], Lang::Ben),
        language("ca", &[Latin], Lang::Cat),
        language("cs", &[Latin], Lang::Ces),
        language("da", &[Latin], Lang::Dan),
        language("de", &[Latin], Lang::Deu),
        language("el", &[Greek], Lang::Ell),
        language("en", &[Latin], Lang::Eng),
        language("es", &[Latin], Lang::Spa),
        language("fa", &[Arabic], Lang::Pes),
        language("fi", &[Latin], Lang::Fin),
        language("fr", &[Latin], Lang::Fra),
        language("he", &[Hebrew], Lang::Heb),
        language("hi", &[Devanagari], Lang::Hin),
        language("hr", &[Latin], Lang::Hrv),
        language("hu", &[Latin], Lang::Hun),
        language("hy", &[Armenian], Lang::Hye),
        language("id", &[Latin], Lang::Ind),
        language("it", &[Latin], Lang::Ita),
        language("ja", &[Kana, Han], Lang::Jpn),
        language("ka", &[Georgian], Lang::Kat),
        language("ko", &[Hangul], Lang::Kor),
        language("mr", &[Devanagari], Lang::Mar),
        language("nb", &[Latin], Lang::Nob),
        language("nl", &[Latin], Lang::Nld),
        language("pl", &[Latin], Lang::Pol),
        language("pt", &[Latin], Lang::Por),
        language("ro", &[Latin], Lang::Ron),
        language("ru", &[Cyrillic], Lang::Rus),
        language("sv", &[Latin], Lang::Swe),
        language("ta", &[Tamil], Lang::Tam),
        language("te", &[Telugu], Lang::Tel),
        language("th", &[Thai], Lang::Tha),
        language("tr", &[Latin], Lang::Tur),
        language("uk", &[Cyrillic], Lang::Ukr),
        language("vi", &[Latin], Lang::Vie),
        language("zh", &[Han], Lang::Cmn),
    ]
};

/// The language of a code.
pub fn find(code: &str) -> Option<&'static Language> {
    LANGUAGES.iter().find(|language| language.code == code)
}
