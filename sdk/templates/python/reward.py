# The JSON Schema of the config; its keys are given to the function as keyword arguments.
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "tag": {"type": "string", "pattern": "^[a-z]+$", "description": "what the answer stands in; answer"}
    },
}

# True: completions are lists of messages, [{"role": "assistant", "content": ...}], and prompts too. False: both are texts.
CONVERSATIONAL = False


def reward(prompts, completions, reference, tag="answer", log_extra=None, **columns) -> list[float | None]:
    """1 if the last <answer>..</answer> of the completion holds the reference; None: undecided."""
    rewards, answers, notes = [], [], []
    for completion, wanted in zip(completions, reference):
        score, answer, note = judge(completion, wanted, f"<{tag}>", f"</{tag}>")
        rewards.append(score)
        answers.append(answer)
        notes.append(note)
    if log_extra:  # "answer" and "note" are shown with the verdict
        log_extra("answer", answers)
        log_extra("note", notes)
    return rewards


def judge(completion, wanted, opening, closing):
    if wanted is None:
        return None, None, "the prompt has no reference"
    _, opened, rest = completion.rpartition(opening)
    answer, closed, _ = rest.partition(closing)
    if not opened or not closed:
        return 0.0, None, f"there is no {opening}"
    answer, wanted = answer.strip(), wanted.strip()
    if answer == wanted:
        return 1.0, answer, None
    return 0.0, answer, f"expected {wanted}"
