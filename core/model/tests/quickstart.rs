//! The files that the quickstart's model is made of.

use std::path::PathBuf;

use base::Message;
use model::{ChatTemplate, Tokenizer};

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines/quickstart")).join(name)
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

#[test]
fn text_survives_the_way_to_tokens_and_back() {
    let tokenizer = Tokenizer::from_file(&file("tokenizer.json")).unwrap();
    let text = "<user>123+989=?<assistant><think>3+9=12,1+2+8=11,1+1+9=11</think><answer>1112</answer><eos>";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids), text);
    // Each tag is one token, each other character one.
    assert_eq!(ids.len(), 7 + "123+989=?".len() + "3+9=12,1+2+8=11,1+1+9=11".len() + "1112".len());
    assert_eq!(ids[0], 2);
    assert_eq!(tokenizer.vocab_size(), 25);
    assert!(tokenizer.encode("1/2").unwrap_err().to_string().contains("'/'"));
}

#[test]
fn the_template_writes_prompts_and_whole_conversations() {
    let source = std::fs::read_to_string(file("chat_template.jinja")).unwrap();
    let template = ChatTemplate::new(&source).unwrap();
    let mut messages = vec![message("user", "1+2=?")];
    assert_eq!(template.render(&messages, true, "", "<eos>").unwrap(), "<user>1+2=?<assistant>");
    assert_eq!(template.render(&messages, false, "", "<eos>").unwrap(), "<user>1+2=?");
    messages.push(message("assistant", "<answer>3</answer>"));
    let whole = template.render(&messages, false, "", "<eos>").unwrap();
    assert_eq!(whole, "<user>1+2=?<assistant><answer>3</answer><eos>");
    let error = template.render(&[message("tool", "")], true, "", "<eos>").unwrap_err().to_string();
    assert!(error.contains("not with tool"), "{error}");
}

#[test]
fn the_r1_zero_template_ends_where_the_assistant_begins() {
    let template = ChatTemplate::new(ChatTemplate::named("r1-zero").unwrap()).unwrap();
    let text = template.render(&[message("user", "What is 2 + 2?")], true, "", "").unwrap();
    assert!(text.starts_with("A conversation between User and Assistant."), "{text}");
    assert!(text.ends_with("</answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: What is 2 + 2? Assistant:"), "{text}");
    assert!(ChatTemplate::named("r2").is_none());
}
