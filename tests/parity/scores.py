"""Scores of reward models by transformers, made from the checkpoints beside this file.

`python tests/parity/scores.py` writes `scores.safetensors` anew: torch 2.15.0, transformers 5.23.0, one thread. Each model
is the body of `MODEL/` with a seeded head of one label; the batch is that of its `reference.safetensors`, padded on the right.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

HERE = Path(__file__).parent
MODELS = ["llama", "qwen2", "qwen3_moe", "deepseek_v3"]
PAD = 0
# Tensors whose gradients are kept: the head, and norms at both ends of the body.
GRADIENTS = ["score.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight"]

torch.set_num_threads(1)
out = {}
for number, name in enumerate(MODELS):
    model = AutoModelForSequenceClassification.from_pretrained(
        HERE / name, num_labels=1, pad_token_id=PAD, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(1, model.config.hidden_size, generator=generator) * 0.2)
    reference = load_file(HERE / name / "reference.safetensors")
    ids = torch.full_like(reference["input_ids"], PAD)
    mask = torch.zeros_like(ids)
    for row in range(ids.shape[0]):
        tokens = reference["input_ids"][row][reference["attention_mask"][row] == 1]
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    scores = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0]
    # Bradley-Terry of row 0 over row 1 and of row 2 over row 0, the mean.
    loss = -torch.nn.functional.logsigmoid(torch.stack([scores[0] - scores[1], scores[2] - scores[0]])).mean()
    loss.backward()
    parameters = dict(model.named_parameters())
    out[f"{name}.head"] = model.score.weight.detach().clone()
    out[f"{name}.input_ids"], out[f"{name}.attention_mask"] = ids, mask
    out[f"{name}.scores"], out[f"{name}.loss"] = scores.detach().clone(), loss.detach().reshape(1)
    for tensor in GRADIENTS:
        out[f"{name}.grad.{tensor}"] = parameters[tensor].grad.clone()
    print(name, scores.tolist(), loss.item())
save_file(out, HERE / "scores.safetensors")
