//! The sampling walk against the learning walk, and against itself in other company.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Completion, Finish, RngKey};
use candle_core::{Device, Tensor};
use serde_json::json;

use super::{ARCHITECTURES, load, prompt, quickstart, values, variant};
use crate::sampler::{Request, Settings, Stats, sample};
use crate::{Model, Sequence, Walk};

const PROMPTS: [&str; 5] =
    ["<user>123+456=?<assistant>", "<user>7+8=?<assistant>", "<user>999+111=?<assistant>", "<user>", "<user>1+2"];

pub(super) fn settings(slots: usize) -> Settings {
    Settings { temperature: 0.9, ..Settings::new(24, slots) }
}

pub(super) fn requests(model: &Model, completions: usize) -> Vec<Request> {
    let request =
        |(i, text): (usize, &&str)| Request { prompt: prompt(i as u64, text, model), index: i as u64, completions };
    PROMPTS.iter().enumerate().map(request).collect()
}

fn run(model: &Model, requests: &[Request], settings: &Settings) -> (BTreeMap<usize, Vec<Completion>>, Stats) {
    let mut all = BTreeMap::new();
    let (key, stop) = (RngKey::new(17, "sample"), AtomicBool::new(false));
    let stats = sample(model, requests, settings, key, 3, &stop, &mut |i, completions| {
        assert!(all.insert(i, completions).is_none(), "request {i} was done twice");
    })
    .unwrap();
    (all, stats)
}

pub(super) fn assert_one_mind(model: &Model, requests: &[Request], settings: &Settings) {
    let (all, _) = run(model, requests, settings);
    let mut rows = Vec::new();
    let mut recorded = Vec::new();
    for (i, completions) in &all {
        for completion in completions {
            let prompt = &requests[*i].prompt.tokens;
            rows.push(([prompt.as_slice(), &completion.tokens].concat(), prompt.len()));
            recorded.extend_from_slice(&completion.logprobs);
        }
    }
    let sequences: Vec<Sequence<'_>> = rows.iter().map(|(tokens, from)| Sequence::new(tokens, *from)).collect();
    let walk = model.logprobs(&sequences, settings.temperature, Walk::Learn).unwrap();
    let learned = values(&walk.values);
    assert_eq!(learned.len(), recorded.len());
    let differ = learned.iter().zip(&recorded).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    assert_eq!(differ, 0, "of {} sampled tokens {differ} have another log-probability when learned", learned.len());
    // The learning walk sends every token to the experts that sampling sent it to.
    let mut load: Vec<Vec<usize>> = walk.expert_load.iter().map(|layer| vec![0; layer.len()]).collect();
    for completion in all.values().flatten() {
        let experts = &completion.experts;
        // A dense model chooses none.
        for token in experts.ids.chunks((experts.layers * experts.per_token).max(1)) {
            for (layer, chosen) in token.chunks(experts.per_token).enumerate() {
                chosen.iter().for_each(|&expert| load[layer][usize::from(expert)] += 1);
            }
        }
    }
    assert_eq!(load, walk.expert_load);
}

#[test]
fn learning_sees_the_sampled_log_probabilities_bit_for_bit() {
    let model = quickstart(1);
    for temperature in [1.0, 0.6] {
        assert_one_mind(&model, &requests(&model, 6), &Settings { temperature, ..settings(7) });
    }
    for name in ARCHITECTURES {
        let model = load(name);
        let request = |i: u64| Request {
            prompt: prompt(i, &"7 and 8 make 15; "[..4 + i as usize], &model),
            index: i,
            completions: 3,
        };
        let requests: Vec<Request> = (0..5).map(request).collect();
        let together = Settings { temperature: 1.0, max_tokens: 40, ..settings(4) };
        assert_one_mind(&model, &requests, &together);
        let alone = run(&model, &requests, &Settings { slots: 1, ..together.clone() });
        assert!(alone == run(&model, &requests, &together), "{name}: company changes a completion");
    }
}

/// Biases of all projections, and a dense layer between mixtures of experts.
#[test]
fn a_mixed_model_is_of_one_mind_and_uses_its_biases() {
    let model = variant("qwen3_moe", json!({"attention_bias": true, "mlp_only_layers": [1], "initializer_range": 0.2}));
    let request = |i: u64| Request { prompt: prompt(i, "7 and 8 make 15", &model), index: i, completions: 3 };
    let requests: Vec<Request> = (0..3).map(request).collect();
    let settings = Settings { temperature: 1.0, max_tokens: 20, ..settings(4) };
    let (without, _) = run(&model, &requests, &settings);
    assert!(without[&0].iter().all(|completion| completion.experts.layers == 2));
    let biases: Vec<_> = model.params().into_iter().filter(|param| param.name().ends_with("proj.bias")).collect();
    assert_eq!(biases.len(), 2 * 3);
    for bias in biases {
        let values: Vec<f32> = (0..bias.elem_count()).map(|i| (i % 7) as f32 * 0.1 - 0.3).collect();
        bias.set(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
        let (with, _) = run(&model, &requests, &settings);
        assert!(with != without, "{} changes nothing", bias.name());
        assert_one_mind(&model, &requests, &settings);
        bias.set(&bias.value().zeros_like().unwrap()).unwrap();
    }
}

#[test]
fn completions_do_not_depend_on_their_company() {
    let model = quickstart(2);
    let requests = requests(&model, 5);
    let (expected, stats) = run(&model, &requests, &settings(1000));
    assert_eq!(expected.len(), PROMPTS.len());
    assert!(expected.values().all(|completions| completions.len() == 5));
    assert_eq!(stats.prompt_tokens, requests.iter().map(|request| request.prompt.tokens.len()).sum::<usize>());
    assert_eq!(stats.tokens, expected.values().flatten().map(|completion| completion.tokens.len()).sum::<usize>());
    for slots in [1, 2, 3, 7] {
        let (all, again) = run(&model, &requests, &settings(slots));
        assert!(all == expected, "{slots} slots change a completion");
        assert_eq!(again, stats, "a prompt is computed once, whatever the number of slots");
    }
    for request in &requests {
        let (alone, _) = run(&model, std::slice::from_ref(request), &settings(3));
        assert!(alone[&0] == expected[&(request.index as usize)]);
    }
}

/// Settings that use every option, alone and together.
fn options() -> [Settings; 5] {
    let plain = settings(1);
    [
        Settings { temperature: 0.0, repetition_penalty: Some(1.3), ..plain.clone() },
        Settings { top_k: Some(5), top_p: Some(0.8), ..plain.clone() },
        Settings { temperature: 1.5, min_p: Some(0.3), ..plain.clone() },
        Settings { stop: vec!["7".into(), "+1".into(), "><".into()], stop_tokens: vec![20], ..plain.clone() },
        Settings {
            repetition_penalty: Some(0.9),
            temperature: 1.2,
            top_k: Some(20),
            top_p: Some(0.95),
            min_p: Some(0.02),
            stop: vec!["0".into(), "=</".into()],
            stop_tokens: vec![9, 14],
            ..plain
        },
    ]
}

#[test]
fn no_option_lets_company_change_a_completion() {
    let model = quickstart(2);
    let requests = requests(&model, 5);
    let key = RngKey::new(8, "company");
    for (i, settings) in (0..).zip(options()) {
        let (expected, _) = run(&model, &requests, &settings);
        for case in 0..8 {
            let words = key.words([i, case, 0, 0]);
            let (slots, count) = (1 + words[0] as usize % 9, 1 + words[1] as usize % requests.len());
            let order = key.permutation(i * 8 + case, requests.len());
            let some = |(at, &request): (usize, &usize)| Request {
                completions: 1 + key.words([i, case, 1, at as u32])[0] as usize % 5,
                ..requests[request].clone()
            };
            let some: Vec<Request> = order[..count].iter().enumerate().map(some).collect();
            let (all, _) = run(&model, &some, &Settings { slots, ..settings.clone() });
            for (request, completions) in &all {
                let expected = &expected[&(some[*request].index as usize)][..completions.len()];
                assert!(completions == expected, "{slots} slots, {count} requests: {settings:?}");
            }
        }
    }
}

#[test]
fn no_option_parts_learning_from_sampling() {
    let model = quickstart(1);
    for settings in options().into_iter().filter(|settings| settings.temperature > 0.0) {
        assert_one_mind(&model, &requests(&model, 6), &Settings { slots: 7, ..settings });
    }
}

#[test]
fn stops_end_a_completion_and_its_text() {
    let model = quickstart(3);
    let free_settings = Settings { max_tokens: 12, ..settings(16) };
    let (free, _) = run(&model, &requests(&model, 8), &free_settings);
    let stop = ["7", "+1", "</answer>", "><"].map(String::from);
    let (token, eos) = (model.tokenizer.token_id("=").unwrap(), model.tokenizer.eos_ids()[0]);
    let with = Settings { stop: stop.to_vec(), stop_tokens: vec![token], ..free_settings };
    let (stopped, _) = run(&model, &requests(&model, 8), &with);
    let mut kinds = [0; 3];
    for (free, stopped) in free.values().flatten().zip(stopped.values().flatten()) {
        let text = |count: usize| model.tokenizer.decode(&free.tokens[..count]);
        let is_token = |count: usize| [token, eos].contains(&free.tokens[count - 1]);
        let contains = |count: usize| !is_token(count) && stop.iter().any(|stop| text(count).contains(stop));
        let ends = |&count: &usize| is_token(count) || contains(count);
        let count = (1..=free.tokens.len()).find(ends);
        // Up to its end a completion is what it is without stops.
        assert_eq!(stopped.tokens, free.tokens[..count.unwrap_or(free.tokens.len())]);
        assert_eq!(stopped.logprobs, free.logprobs[..stopped.tokens.len()]);
        let (kind, finish, text) = match count {
            None => (0, free.finish, free.text.clone()),
            Some(count) if contains(count) => {
                let first = stop.iter().filter_map(|stop| text(count).find(stop)).min().unwrap();
                (1, Finish::Stop, text(count)[..first].to_string())
            }
            Some(count) => (2, Finish::Stop, text(count - 1)),
        };
        assert_eq!((stopped.finish, &stopped.text), (finish, &text));
        kinds[kind] += 1;
    }
    assert!(kinds.iter().all(|&kind| kind > 2), "{kinds:?} ended freely, by text, by token");
}

#[test]
fn completions_differ_by_number_and_end_as_they_say() {
    let model = quickstart(3);
    let (all, _) = run(&model, &requests(&model, 8), &settings(16));
    let eos = model.tokenizer.eos_ids()[0];
    for (i, completions) in &all {
        for completion in completions {
            let Completion { tokens, finish, text, .. } = completion;
            assert_eq!(tokens.iter().position(|&t| t == eos), (*finish == Finish::Stop).then(|| tokens.len() - 1));
            assert!(*finish == Finish::Stop || tokens.len() == 24);
            assert!(!text.contains("<eos>"));
            assert_eq!((completion.logprobs.len(), completion.loss_mask.len()), (tokens.len(), tokens.len()));
            // The last token is never read, so it has no experts.
            let read = model.tokenizer.encode(PROMPTS[*i]).unwrap().len() + tokens.len() - 1;
            assert_eq!(completion.experts.ids.len(), read * 2 * 2);
        }
        let distinct: std::collections::BTreeSet<_> = completions.iter().map(|completion| &completion.tokens).collect();
        assert!(distinct.len() > 4, "request {i} gave only {} distinct completions", distinct.len());
    }
    let finishes: Vec<Finish> = all.values().flatten().map(|completion| completion.finish).collect();
    assert!(finishes.contains(&Finish::Stop) && finishes.contains(&Finish::Length));
}

#[test]
fn filters_change_the_choice_and_not_the_recorded_probability() {
    let model = quickstart(4);
    let requests = requests(&model, 2);
    let (greedy, _) = run(&model, &requests, &Settings { temperature: 0.0, ..settings(4) });
    let (top, _) = run(&model, &requests, &Settings { temperature: 1.0, top_k: Some(1), ..settings(4) });
    assert!(greedy == top, "top-k 1 at temperature 1 is greedy, with log-probabilities at temperature 1");
    assert!(greedy.values().flatten().flat_map(|completion| &completion.logprobs).all(|&logp| logp < -0.01));
    assert_one_mind(&model, &requests, &Settings { temperature: 1.0, top_p: Some(0.5), ..settings(4) });
}

#[test]
fn the_context_ends_a_completion() {
    let model = quickstart(4);
    let tokens = vec![9; model.config.context - 3];
    let request = Request { prompt: super::prompt_of(0, tokens), index: 0, completions: 4 };
    let (all, _) = run(&model, &[request], &Settings { max_tokens: usize::MAX, ..settings(2) });
    assert!(all[&0].iter().all(|completion| completion.tokens.len() <= 3));
    assert!(all[&0].iter().any(|completion| completion.finish == Finish::Length));
}

#[test]
fn a_stop_returns_early_without_the_unfinished() {
    let model = quickstart(2);
    let stop = AtomicBool::new(false);
    let mut finished = 0;
    let (requests, settings, key) = (requests(&model, 2), settings(2), RngKey::new(1, "sample"));
    let stats = sample(&model, &requests, &settings, key, 0, &stop, &mut |_, _| {
        finished += 1;
        stop.store(true, Ordering::Release);
    })
    .unwrap();
    assert!((1..PROMPTS.len()).contains(&finished), "{finished}");
    assert!(stats.tokens > 0);
}

#[test]
fn requests_that_cannot_be_met_are_refused_in_words() {
    let model = quickstart(2);
    let check = |tokens: Vec<u32>, settings: Settings, expected: &str| {
        let request = Request { prompt: super::prompt_of(7, tokens), index: 0, completions: 1 };
        let (key, stop) = (RngKey::new(1, "sample"), AtomicBool::new(false));
        let error = sample(&model, &[request], &settings, key, 0, &stop, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(vec![], settings(1), "prompt 7 of `test` has no tokens");
    check(vec![9; 257], settings(1), "has 257 tokens; the model's context is 256");
    check(vec![9; 256], settings(1), "no room for an answer");
    check(vec![25], settings(1), "holds token 25; the model's vocabulary has 25");
    check(vec![9], Settings { temperature: -1.0, ..settings(1) }, "temperature is -1");
    check(vec![9], Settings { temperature: f64::NAN, ..settings(1) }, "temperature is NaN");
    check(vec![9], Settings { top_p: Some(0.0), ..settings(1) }, "top_p");
    check(vec![9], Settings { min_p: Some(1.5), ..settings(1) }, "min_p");
    check(vec![9], Settings { top_k: Some(0), ..settings(1) }, "top_k");
    check(vec![9], Settings { repetition_penalty: Some(0.0), ..settings(1) }, "repetition penalty");
    check(vec![9], Settings { stop: vec!["a".into(), String::new()], ..settings(1) }, "a stop string is empty");
    check(vec![9], Settings { max_tokens: 0, ..settings(1) }, "max_tokens");
    let bad = |tokens: &[u32], from: usize, expected: &str| {
        let error = model.logprobs(&[Sequence::new(tokens, from)], 1.0, Walk::Learn).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    };
    bad(&[9; 300], 1, "sequence 0 has 300 tokens");
    bad(&[9, 99], 1, "holds token 99");
    bad(&[9, 9], 0, "no target");
    bad(&[9, 9], 2, "no target");
    bad(&[], 1, "no target");
    assert!(model.logprobs(&[], 1.0, Walk::Learn).is_err());
}
