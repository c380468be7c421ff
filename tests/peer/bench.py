"""What torch, transformers and TRL give on this machine's CPU, in float32, for the work that `pipeline bench` measures.

    python3 -m venv venv && venv/bin/pip install -r tests/peer/requirements.txt
    venv/bin/python tests/peer/bench.py --threads 2 [--only dense|moe] [--what limits,sample,train,memory,grpo] [--quick]

The models are `dense.json` and `moe.json` beside this file, with random weights. Each figure is the best that the peer gives: every
implementation of attention, experts and AdamW that it has for a CPU is tried, the fastest (for memory: the smallest) is printed and
named. Speed is the best of `--repeat` runs after one that is not counted. `--quick` shrinks the work: it shows that everything runs.
"""

import argparse
import gc
import itertools
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = ["dense", "moe"]
KINDS = ["limits", "sample", "train", "memory", "grpo"]
ATTENTION = ["sdpa", "eager"]
# `batched_mm` copies the chosen experts' weights for each token: fit for sampling, hopeless for a training batch.
EXPERTS = {"sample": ["grouped_mm", "batched_mm", "eager"], "train": ["grouped_mm", "eager"]}
OPTIMIZERS = ["fused", "foreach"]
MB = 1e6


class Work:
    """The sizes of the work; `--quick` changes nothing else."""

    def __init__(self, quick):
        self.batches = [1, 4] if quick else [1, 16, 64]
        self.prompt, self.completion = (16, 8) if quick else (64, 128)
        self.train_batch, self.train_length = (2, 64) if quick else (16, 256)
        self.prompts, self.group = (2, 4) if quick else (16, 8)
        # Completions in one forward and backward of GRPO; their gradients are accumulated to one optimizer step.
        self.micro_batch = 4 if quick else 16
        self.side, self.array = (512, 1 << 24) if quick else (2048, 250_000_000)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=MODELS, help="one of the two models")
    parser.add_argument("--what", default=",".join(KINDS), help="comma-separated, of " + ", ".join(KINDS))
    parser.add_argument("--repeat", type=int, default=2, help="runs of which the fastest counts")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one run")
    parser.add_argument("--peak-of", nargs=4, metavar=("MODEL", "ATTENTION", "EXPERTS", "OPTIMIZER"),
                        help="take two training steps, print this process's memory in bytes: with the libraries only, at its peak")
    args = parser.parse_args()
    args.what = args.what.split(",")
    if unknown := set(args.what) - set(KINDS):
        parser.error(f"--what: {', '.join(sorted(unknown))} is not one of {', '.join(KINDS)}")
    if args.quick:
        args.repeat = 1
    return args


def build(name, attention, experts):
    import transformers

    config = transformers.AutoConfig.from_pretrained(HERE / f"{name}.json")
    torch.manual_seed(0)
    kinds = {"attn_implementation": attention}
    if name == "moe":
        kinds["experts_implementation"] = experts
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, **kinds)


def variants(name, work):
    """The pairs (attention, experts) to try; a dense model has no experts."""
    return list(itertools.product(ATTENTION, EXPERTS[work] if name == "moe" else ["-"]))


def label(*parts):
    return " ".join(part for part in parts if part != "-")


def fastest(repeat, run):
    """Seconds of the fastest of `repeat` runs, after one that warms up."""
    run()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def row(name, what, value, unit, how):
    print(f"{name:<9}{what:<34}{value:>12,.1f} {unit:<10}{how}", flush=True)


def limits(args, work):
    """What the machine can give: f32 products and reads from memory, with one thread and with all."""
    for threads in sorted({1, args.threads}):
        torch.set_num_threads(threads)
        a, b = torch.rand(work.side, work.side), torch.rand(work.side, work.side)
        seconds = fastest(max(5, args.repeat), lambda: torch.mm(a, b))
        row("machine", f"f32 product, {threads} thread(s)", 2 * work.side**3 / seconds / 1e9, "GF/s", f"torch.mm, {work.side} cubed")

        array = torch.ones(work.array)
        ways = {"sum": lambda: torch.sum(array), "dot with itself": lambda: torch.dot(array, array)}
        seconds, how = min((fastest(max(5, args.repeat), run), how) for how, run in ways.items())
        row("machine", f"read, {threads} thread(s)", 4 * work.array / seconds / 1e9, "GB/s", f"{how}, {4 * work.array / MB:,.0f} MB")
    torch.set_num_threads(args.threads)


def sample(name, args, work):
    """Tokens a second of `generate` with its cache, the prompt's forward included, at temperature 1 and without an end token."""
    import transformers

    best = {}
    for attention, experts in variants(name, "sample"):
        model = build(name, attention, experts).eval()
        config = transformers.GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=work.completion, pad_token_id=0)
        for batch in work.batches:
            prompt = torch.randint(0, model.config.vocab_size, (batch, work.prompt))

            def run():
                out = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
                assert out.shape == (batch, work.prompt + work.completion), out.shape

            speed = batch * work.completion / fastest(args.repeat, run)
            best[batch] = max(best.get(batch, (0, "")), (speed, label(attention, experts)))
    for batch, (speed, how) in best.items():
        row(name, f"sample {work.prompt}+{work.completion}, batch {batch}", speed, "tokens/s", how)


def train_step(name, attention, experts, optimizer, work):
    """A function that takes one step: forward, backward and AdamW."""
    model = build(name, attention, experts).train()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, **{optimizer: True})
    tokens = torch.randint(0, model.config.vocab_size, (work.train_batch, work.train_length))

    def run():
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    return run


def train(name, args, work):
    best = (0, "")
    for (attention, experts), optimizer in itertools.product(variants(name, "train"), OPTIMIZERS):
        gc.collect()
        run = train_step(name, attention, experts, optimizer, work)
        speed = work.train_batch * work.train_length / fastest(args.repeat, run)
        best = max(best, (speed, label(attention, experts, optimizer)))
    row(name, f"train step, {work.train_batch} x {work.train_length}", best[0], "tokens/s", best[1])


def memory(name, args, work):
    """Peak memory of a training step, each variant in a process of its own."""
    peaks = []
    for (attention, experts), optimizer in itertools.product(variants(name, "train"), OPTIMIZERS):
        command = [sys.executable, __file__, "--threads", str(args.threads), "--peak-of", name, attention, experts, optimizer]
        out = subprocess.run(command + ["--quick"] * args.quick, check=True, stdout=subprocess.PIPE, text=True).stdout
        libraries, peak = map(int, out.split()[-2:])
        peaks.append((peak, f"{label(attention, experts, optimizer)}, of which libraries {libraries / MB:,.0f} MB"))
    peak, how = min(peaks)
    row(name, "peak memory of that step", peak / MB, "MB", how)


def peak_of(variant, work):
    """Prints the memory of two steps, since the first allocates the optimizer's state after its backward."""
    def bytes_of(field):
        return 1024 * int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])

    # On the device without storage: it only imports what the model needs.
    with torch.device("meta"):
        build(*variant[:3])
    libraries = bytes_of("VmRSS")
    run = train_step(*variant, work)
    run()
    run()
    print(libraries, bytes_of("VmHWM"))


def tokenizer(vocabulary):
    """One word for each token of the model; the end and the padding stand behind its vocabulary, so that it never samples them."""
    import tokenizers
    import transformers

    words = {f"w{i}": i for i in range(vocabulary)} | {"<end>": vocabulary, "<pad>": vocabulary + 1}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<pad>")


def grpo(name, args, work):
    """Seconds of one whole step of TRL's GRPOTrainer: sampling, rewards, forward, backward, AdamW."""
    import datasets
    import transformers
    import trl

    class Clock(transformers.TrainerCallback):
        def __init__(self):
            self.seconds = []

        def on_step_begin(self, *_, **__):
            self.start = time.perf_counter()

        def on_step_end(self, *_, **__):
            self.seconds.append(time.perf_counter() - self.start)

    def reward(completion_ids, **_):
        assert all(len(ids) == work.completion for ids in completion_ids), "a completion ended early"
        return [sum(ids) % 7 / 7 for ids in completion_ids]

    # A step is long enough that the first counts as well as another.
    steps = max(2, args.repeat)
    completions = work.prompts * work.group
    folder = tempfile.TemporaryDirectory()
    best = (float("inf"), "")
    for attention, experts in variants(name, "train"):
        gc.collect()
        model = build(name, attention, experts)
        vocabulary = model.config.vocab_size
        prompts = torch.randint(0, vocabulary, (steps * work.prompts, work.prompt)).tolist()
        config = trl.GRPOConfig(
            output_dir=folder.name, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", save_strategy="no",
            logging_strategy="no", disable_tqdm=True, max_steps=steps, learning_rate=1e-5,
            per_device_train_batch_size=work.micro_batch, gradient_accumulation_steps=completions // work.micro_batch,
            steps_per_generation=completions // work.micro_batch, num_generations=work.group, num_iterations=1,
            max_completion_length=work.completion, temperature=1.0, top_k=0, top_p=1.0, beta=0.0, loss_type="dapo")
        clock = Clock()
        trainer = trl.GRPOTrainer(
            model=model, reward_funcs=reward, args=config, processing_class=tokenizer(vocabulary), callbacks=[clock],
            train_dataset=datasets.Dataset.from_dict({"prompt": [" ".join(f"w{i}" for i in ids) for ids in prompts]}))
        trainer.remove_callback(transformers.PrinterCallback)
        torch.set_num_threads(args.threads)
        trainer.train()
        assert len(clock.seconds) == steps, clock.seconds
        best = min(best, (min(clock.seconds), label(attention, experts)))
    what = f"GRPO step, {work.prompts} x {work.group}, {work.prompt}+{work.completion}"
    row(name, what, best[0], "s", best[1])


def main():
    args = parse()
    # Before torch is imported: its OpenMP and MKL read these once.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.filterwarnings("ignore")
    global torch
    import torch

    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("highest")
    work = Work(args.quick)
    if args.peak_of:
        peak_of(args.peak_of, work)
        return

    import transformers
    import trl

    transformers.logging.set_verbosity_error()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, TRL {trl.__version__}, "
          f"{torch.backends.cpu.get_cpu_capability()}, float32, {args.threads} thread(s)")
    if "limits" in args.what:
        limits(args, work)
    for name in [args.only] if args.only else MODELS:
        for kind, measure in {"sample": sample, "train": train, "memory": memory, "grpo": grpo}.items():
            if kind in args.what:
                gc.collect()
                measure(name, args, work)


if __name__ == "__main__":
    main()
