"""How values cross between the two sandboxes: as JSON, exact types kept.

Plain data goes by value. What else a program has (its own objects, functions, iterators) stays there, and a reference crosses.
"""

import builtins
import collections
import decimal
import fractions
import importlib
import marshal
import types

SCALARS = (type(None), bool, str, float)
DEPTH = 200
# The decimal form of longer integers would take quadratic time.
INT_BITS = 4096


class Foreign(Exception):
    """A value that can't cross."""


def flat(value, other, depth=0):
    """`value` as JSON; `other(value)` stands for what is no plain data."""
    kind = type(value)
    if kind in SCALARS or kind is int and value.bit_length() <= INT_BITS:
        return value
    if depth > DEPTH:
        raise Foreign("a value that is nested too deeply, or holds itself")
    if kind in SEQUENCES:
        return [SEQUENCES[kind], *[flat(item, other, depth + 1) for item in value]]
    if kind in MAPPINGS:
        items = [MAPPINGS[kind]]
        for key, item in value.items():
            items.append(flat(key, other, depth + 1))
            items.append(flat(item, other, depth + 1))
        return items
    if kind in WRITTEN:
        tag, write, _ = WRITTEN[kind]
        return [tag, write(value)]
    if kind is type and getattr(builtins, value.__name__, None) is value:
        return ["type", value.__name__]
    return other(value)


SEQUENCES = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset", collections.deque: "deque"}
MAPPINGS = {
    dict: "dict",
    collections.OrderedDict: "OrderedDict",
    collections.Counter: "Counter",
    # Its factory matters to who fills it, and not to who compares it.
    collections.defaultdict: "dict",
}
# How a value is written as JSON, and how it is read.
WRITTEN = {
    int: ("int", hex, lambda text: int(text, 16)),
    complex: ("complex", lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    bytes: ("bytes", bytes.hex, bytes.fromhex),
    bytearray: ("bytearray", bytearray.hex, bytearray.fromhex),
    range: ("range", lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    decimal.Decimal: ("Decimal", str, decimal.Decimal),
    fractions.Fraction: (
        "Fraction",
        lambda value: [hex(value.numerator), hex(value.denominator)],
        lambda parts: fractions.Fraction(int(parts[0], 16), int(parts[1], 16)),
    ),
    type(Ellipsis): ("ellipsis", lambda _: 0, lambda _: ...),
    type(NotImplemented): ("NotImplemented", lambda _: 0, lambda _: NotImplemented),
}
MAKE_SEQUENCE = {tag: kind for kind, tag in SEQUENCES.items()}
MAKE_MAPPING = {"dict": dict, "OrderedDict": collections.OrderedDict, "Counter": lambda items: collections.Counter(dict(items))}
READ = {tag: read for tag, _, read in WRITTEN.values()}


def whole(data, other):
    """The value that `flat` wrote; `other(data)` gives what stands for what is no plain data."""
    if type(data) is not list:
        if type(data) in SCALARS or type(data) is int:
            return data
        raise Foreign("a malformed value")
    tag = data[0] if data else None
    if type(tag) is not str:
        raise Foreign("a malformed value")
    if tag in MAKE_SEQUENCE:
        return MAKE_SEQUENCE[tag]([whole(item, other) for item in data[1:]])
    if tag in MAKE_MAPPING:
        items = [whole(item, other) for item in data[1:]]
        return MAKE_MAPPING[tag](zip(items[::2], items[1::2]))
    if tag in READ:
        return READ[tag](data[1])
    if tag == "type" and type(getattr(builtins, data[1])) is type:
        return getattr(builtins, data[1])
    return other(data)


# What tests hand to a program. The other way it would be a hole: only the program's side reads these.


def flat_code(value, flat_value):
    """A function, class or module of the tests as JSON; `None` if it is none that can cross."""
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    name = getattr(value, "__qualname__", None)
    module = getattr(value, "__module__", None)
    if isinstance(module, str) and isinstance(name, str) and module != "__main__" and "<" not in name:
        return ["import", module, name]
    if not isinstance(value, types.FunctionType):
        return None
    cells = [flat_value(cell.cell_contents) for cell in value.__closure__ or ()]
    names = {}
    for used in names_of(value.__code__):
        if used in value.__globals__ and value.__globals__[used] is not value:
            names[used] = flat_value(value.__globals__[used])
    defaults = flat_value(value.__defaults__)
    return ["function", marshal.dumps(value.__code__).hex(), defaults, flat_value(value.__kwdefaults__), cells, names]


def names_of(code):
    """The global names that code uses, that of functions in it too."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= names_of(constant)
    return sorted(found)


def whole_code(data, read):
    if data[0] == "module":
        return importlib.import_module(data[1])
    if data[0] == "import":
        value = importlib.import_module(data[1])
        for part in data[2].split("."):
            value = getattr(value, part)
        return value
    _, code, defaults, keywords, cells, names = data
    scope = {"__builtins__": builtins, "__name__": "tests"}
    cells = tuple(types.CellType(read(cell)) for cell in cells)
    made = types.FunctionType(marshal.loads(bytes.fromhex(code)), scope, None, read(defaults), cells)
    made.__kwdefaults__ = read(keywords)
    scope.update({name: read(value) for name, value in names.items()})
    scope[made.__name__] = made
    return made
