//! Letters of other scripts, and how answers are announced in other languages.

/// The Latin letter that stands for the same choice: its lower case, its full-width form, and the first four letters of
/// Arabic and Bengali tests. NeMo RL's Bengali tests take the letters after অ and ব from another row of the alphabet.
pub fn latin(c: char) -> Option<char> {
    Some(match c {
        'A'..='Z' => c,
        'a'..='z' => c.to_ascii_uppercase(),
        'Ａ'..='Ｚ' => char::from(b'A' + (c as u32 - 'Ａ' as u32) as u8),
        'أ' | 'ا' | 'অ' | 'ক' => 'A',
        'ب' | 'ব' | 'খ' => 'B',
        'ج' | 'ড' | 'গ' => 'C',
        'د' | 'ঢ' | 'ঘ' => 'D',
        _ => return None,
    })
}

/// The words before the colon that an answer stands after, in the languages of the multilingual MMLU.
pub const LABELS: [&str; 38] = [
    "answer",
    "উত্তর",
    "उत्तर",
    "Antwort",
    "답변",
    "정답",
    "답",
    "答案",
    "答",
    "答复",
    "答曰",
    "الإجابة",
    "الجواب",
    "إجابة",
    "الإجابة النهائية",
    "الإجابة الصحيحة",
    "الإجابة الصحيحة هي",
    "الإجابة هي",
    "الجواب النهائي",
    "Respuesta",
    "Risposta",
    "答え",
    "回答",
    "解答",
    "Jawaban",
    "Réponse",
    "Resposta",
    "Jibu",
    "Idahun",
    "Ìdáhùn",
    "Idáhùn",
    "Àmọ̀nà",
    "Àdáhùn",
    "Ànúgọ",
    "Àṣàyàn",
    "Ответ",
    "Odpowiedź",
    "Cevap",
];

/// The colons of these languages.
pub const COLONS: [char; 3] = [':', '：', 'ঃ'];

/// The words near which an answer stands.
pub const ANCHORS: [&str; 4] = ["answer", "答案", "故选", "正确选项"];
