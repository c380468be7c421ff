"""The glue between a reward function of TRL's and the component's functions.

`reward.py` is imported while the component is made: what it imports at its top is there at run time, nothing else is.
"""

import inspect
import json
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import reward as plugin
from componentize_py_types import Err
from wit_world.imports import log
from wit_world.imports.types import Context, Finding, Group, Verdict, Verdict_Decided, Verdict_Undecided

NOTHING = {"type": "object", "additionalProperties": False}

config: dict[str, Any] = {}


def function() -> Callable[..., list[float | None]]:
    """The function of `reward.py`: `reward`, or the only one that takes `completions`."""
    if callable(found := getattr(plugin, "reward", None)):
        return found
    own = [f for f in vars(plugin).values() if inspect.isfunction(f) and f.__module__ == plugin.__name__]
    found = [f for f in own if "completions" in inspect.signature(f).parameters]
    if len(found) != 1:
        names = ", ".join(f.__name__ for f in found) or "none"
        raise TypeError(f"reward.py must define one function that takes `completions`, or one named `reward`; it has {names}")
    return found[0]


REWARD = function()
PARAMETERS = inspect.signature(REWARD).parameters
TAKES_ALL = any(parameter.kind is parameter.VAR_KEYWORD for parameter in PARAMETERS.values())


def value(text: str) -> Any:
    """A field as its column has it. Lists, tables, truth values and null crossed as JSON; a number stays text, since a
    column of texts may well hold digits."""
    if text[:1] in ("[", "{") or text in ("true", "false", "null"):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


class Config:
    """The interface `config`."""

    def schema(self) -> str:
        return json.dumps(getattr(plugin, "SCHEMA", NOTHING))

    def configure(self, text: str) -> None:
        config.update(json.loads(text))


class Verify:
    """The interface `verify`."""

    def verify(self, ctx: Context, group: Group) -> list[Verdict]:
        try:
            return judge(ctx, group)
        except Exception as error:
            log.emit(log.Level.INFO, traceback.format_exc())
            raise Err(f"{type(error).__name__}: {error}") from error


def judge(ctx: Context, group: Group) -> list[Verdict]:
    """Calls the function as TRL does, once for the whole group."""
    completions = [completion.text for completion in group.completions]
    prompt: Any = [{"role": message.role, "content": message.content} for message in group.prompt]
    if getattr(plugin, "CONVERSATIONAL", False):
        arguments = {"completions": [[{"role": "assistant", "content": text}] for text in completions]}
    else:
        prompt = "\n".join(message["content"] for message in prompt)
        arguments = {"completions": completions}
    columns = {"reference": group.reference, **{name: value(text) for name, text in group.fields}}
    arguments |= {name: [column] * len(completions) for name, column in {"prompts": prompt, **columns}.items()}

    extras: dict[str, list[Any]] = {}
    metrics: list[tuple[str, float]] = []
    arguments |= {
        "trainer_state": SimpleNamespace(global_step=ctx.step),
        "log_extra": lambda column, values: extras.__setitem__(column, list(values)),
        "log_metric": lambda name, number: metrics.append((name, float(number))),
    }
    arguments |= config
    if not TAKES_ALL:
        arguments = {name: argument for name, argument in arguments.items() if name in PARAMETERS}
    scores = REWARD(**arguments)
    if len(scores) != len(completions):
        raise ValueError(f"{REWARD.__name__} returned {len(scores)} rewards for {len(completions)} completions")
    return [verdict(score, i, extras, metrics) for i, score in enumerate(scores)]


def verdict(score: float | None, i: int, extras: dict[str, list[Any]], metrics: list[tuple[str, float]]) -> Verdict:
    """A score with what the function logged as `answer` and `note`; other columns are appended to the note."""
    def extra(column: str) -> str | None:
        found = extras[column][i] if column in extras and i < len(extras[column]) else None
        return None if found is None else str(found)

    note = extra("note")
    if score is None:
        return Verdict_Undecided(note or "the reward function returned None")
    others = [f"{column}: {extra(column)}" for column in extras if column not in ("answer", "note")]
    note = "; ".join(([note] if note is not None else []) + others) or None
    return Verdict_Decided(Finding(float(score), extra("answer"), metrics, note))
