//! The words of both languages.

use procedural::Stream;

/// What sums are said in.
pub(crate) struct Language {
    /// ISO 639-1.
    pub(crate) code: &'static str,
    /// Stands before a sum that is asked for.
    pub(crate) ask: &'static str,
    /// 0 to 19. English words have their space before them.
    pub(crate) numbers: [&'static str; 20],
    pub(crate) plus: &'static str,
    pub(crate) is: &'static str,
    pub(crate) comma: &'static str,
    /// Says that what was just said is wrong.
    pub(crate) wait: &'static str,
    /// Words that say nothing about a sum.
    chatter: [&'static str; 8],
}

pub(crate) static ENGLISH: Language = Language {
    code: "en",
    ask: "sum ",
    numbers: [
        " zero",
        " one",
        " two",
        " three",
        " four",
        " five",
        " six",
        " seven",
        " eight",
        " nine",
        " ten",
        " eleven",
        " twelve",
        " thirteen",
        " fourteen",
        " fifteen",
        " sixteen",
        " seventeen",
        " eighteen",
        " nineteen",
    ],
    plus: " plus",
    is: " is",
    comma: ",",
    wait: " wait",
    chatter: [" well", " so", " let", " me", " see", " the", " this", " then"],
};

pub(crate) static CHINESE: Language = Language {
    code: "zh",
    ask: "求",
    numbers: [
        "零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二", "十三", "十四", "十五",
        "十六", "十七", "十八", "十九",
    ],
    plus: "加",
    is: "是",
    comma: "，",
    wait: "等等",
    chatter: ["好", "我", "想", "看", "这", "那", "么", "再"],
};

impl Language {
    pub(crate) fn other(&self) -> &'static Self {
        if self.code == ENGLISH.code { &CHINESE } else { &ENGLISH }
    }

    /// A few words that say nothing.
    pub(crate) fn chatter(&self, random: &mut Stream) -> String {
        let words = (0..3 + random.below(4)).map(|_| self.chatter[random.below(8) as usize]);
        words.chain([self.comma]).collect()
    }
}
