"""The program's side: runs a program, then the operations on it that the tests asked for, and prints what each gave."""

import builtins
import collections
import io
import itertools
import json
import operator
import sys
import types

from . import values

# What a test can do with an object of the program.
ITEMS = 1024
OPERATIONS = {
    "call": lambda f, args, kwargs: f(*args, **kwargs),
    "items": lambda iterator: list(itertools.islice(iterator, ITEMS)),
    "enter": lambda manager: type(manager).__enter__(manager),
    "exit": lambda manager: type(manager).__exit__(manager, None, None, None),
    **{name: getattr(builtins, name) for name in (
        "bool complex delattr dir float format getattr hash int isinstance issubclass iter len next repr reversed round setattr str"
    ).split()},
    **{name: getattr(operator, name) for name in (
        "add and_ delitem eq floordiv ge getitem gt index inv le lshift lt matmul mod mul ne neg or_ pos pow rshift setitem sub "
        "truediv xor"
    ).split()},
}
MUTABLE = (list, dict, set, bytearray, collections.deque, collections.OrderedDict, collections.Counter)


class Discard(io.RawIOBase):
    """A stream that forgets what is written."""

    def writable(self):
        return True

    def write(self, data):
        return len(data)


class Program:
    def __init__(self, source):
        # For each operation the value that it gave, then those inside of it that stayed here.
        self.kept = []
        self.module = types.ModuleType("program")
        sys.modules["program"] = self.module
        exec(compile(source, "program.py", "exec", dont_inherit=True), self.module.__dict__)

    def write(self, value):
        """The value as JSON; what is no plain data is kept under a number."""
        kept = self.kept[-1]

        def other(value):
            kept.append(value)
            reference = ["kept", len(self.kept) - 1, len(kept) - 1]
            if isinstance(value, type) and issubclass(value, BaseException):
                return ["exception", *reference[1:], lineage(value)]
            for base in (bool, int, float, str, bytes, list, tuple, dict, set, frozenset):
                if isinstance(value, base):
                    # A class of the program's own on top of plain data: also as what is below it.
                    reference.append(values.flat(BELOW[base](value), other))
                    break
            return reference

        return values.flat(value, other)

    def read(self, data):
        def other(data):
            if data[0] == "kept":
                return self.kept[data[1]][data[2]]
            return values.whole_code(data, self.read)

        return values.whole(data, other)

    def perform(self, operation):
        name, *args = operation
        self.kept.append([])
        if name == "get":
            found = self.module.__dict__
            if args[0] not in found and not hasattr(builtins, args[0]):
                raise NameError(f"name {args[0]!r} is not defined")
            value = found[args[0]] if args[0] in found else getattr(builtins, args[0])
            return {"gave": self.write(value)}
        given = [self.read(arg) for arg in args]
        result = {"gave": self.write(OPERATIONS[name](*given))}
        if name == "call" and any(isinstance(arg, MUTABLE) for arg in [*given[1], *given[2].values()]):
            # Arguments that the program changed are changed for the tests, too.
            kept = self.kept[-1]
            self.kept[-1] = kept[:]
            left = [self.write(given[1]), self.write(given[2])]
            if left != args[1:]:
                result["left"] = left
            else:
                self.kept[-1] = kept
        return result


BELOW = {
    bool: bool,
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}


def lineage(kind):
    """The names of an exception class and of the classes that it is made from, up to the first builtin one."""
    names = []
    for base in kind.__mro__:
        names.append(base.__name__)
        if base.__module__ == "builtins":
            break
    return names


def raised(program, error):
    # The class first: it keeps its number whatever the arguments hold.
    kind = program.write(type(error)) if type(error).__module__ != "builtins" else None
    try:
        args = [values.flat(arg, lambda _: None) for arg in error.args]
    except Exception:
        args = []
    return {"raised": lineage(type(error)), "args": args, "class": kind}


def main():
    request = json.loads(sys.stdin.read())
    output = io.FileIO(1, "w", closefd=False)

    def say(line):
        output.write((json.dumps(line) + "\n").encode())

    nowhere = io.BufferedWriter(Discard())
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BytesIO(), "utf-8")
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(nowhere, "utf-8", "replace")
    program = Program(request["program"])
    for operation in json.loads(request["operations"]):
        try:
            answer = program.perform(operation)
        except (Exception, SystemExit) as error:
            try:
                answer = raised(program, error)
            except Exception:
                answer = {"raised": ["Exception"], "args": [], "class": None}
        say(answer)
