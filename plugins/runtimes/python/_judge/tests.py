"""The tests' side: runs the tests with stand-ins for the program, and says which hold, or what it has to know first.

A use of a stand-in is an operation. What an operation gave is known from the program's own run, or it is not: then the tests
go on with a `Guess`, to find out what else they will ask. What was found with a guess never counts.
"""

import ast
import builtins
import collections
import importlib
import io
import json
import operator
import random
import symtable
import sys
import types

from . import values
from .program import ITEMS, Discard


class Ended(BaseException):
    """The program was over before it got to the operation."""


class Session:
    def __init__(self, operations, results):
        self.known = operations
        self.results = results
        self.operations = []
        self.is_guessing = False
        # Exception classes by their lineage, and what stands for them on the program's side.
        self.classes = {}
        self.references = {}

    def perform(self, name, *args, kept=()):
        """What the operation gave, or a guess."""
        operation = [name, *args]
        at = len(self.operations)
        self.operations.append(operation)
        if not self.is_guessing:
            if at < len(self.known) and self.known[at] == operation:
                if at >= len(self.results):
                    raise Ended
                return self.give(self.results[at], kept)
            self.is_guessing = True
        return Guess(self, at)

    def give(self, result, kept):
        try:
            if "raised" in result:
                error = self.error(result)
            else:
                error, value = None, self.read(result["gave"])
                for old, new in zip(kept, self.read(["list", *result.get("left", ())])):
                    merge(old, new)
        except Exception:
            # The program wrote on the channel of the results: that is its end.
            raise Ended from None
        if error is not None:
            raise error
        return value

    def read(self, data):
        def other(data):
            if data[0] == "kept":
                plain = values.whole(data[3], other) if len(data) > 3 else Held
                return Held(self, ["kept", data[1], data[2]], plain)
            if data[0] == "exception":
                return self.exception(data)
            raise values.Foreign("a malformed value")

        return values.whole(data, other)

    def write(self, value):
        def other(value):
            if type(value) is Held or type(value) is Guess:
                return object.__getattribute__(value, "_reference")
            if isinstance(value, type) and value in self.references:
                return self.references[value]
            written = values.flat_code(value, self.write)
            if written is None:
                raise values.Foreign(f"an object of class {type(value).__name__} of the tests")
            return written

        return values.flat(value, other)

    def exception(self, data):
        """A class of our own for an exception class of the program, so that it can be caught."""
        kind, key = Exception, ()
        for name in reversed(data[3]):
            key = (name, *key)
            known = getattr(builtins, name, None)
            if isinstance(known, type) and issubclass(known, BaseException):
                kind = known
            elif key in self.classes:
                kind = self.classes[key]
            else:
                kind = self.classes[key] = type(name, (kind,), {})
        self.references.setdefault(kind, ["kept", data[1], data[2]])
        return kind

    def error(self, result):
        kind = self.exception(result["class"] or ["exception", 0, 0, result["raised"]])
        try:
            return kind(*[self.read(arg) for arg in result["args"]])
        except TypeError:
            return Exception(result["raised"][0])


def merge(old, new):
    """Makes `old` equal to `new` in place, as far as it can be; what takes the place of `old` where it can't."""
    kind = type(old)
    if kind is not type(new):
        return new
    if kind is list or kind is collections.deque:
        items = [merge(a, b) for a, b in zip(old, new)] + list(new)[len(old):]
        old.clear()
        old.extend(items)
    elif kind in values.MAPPINGS:
        items = {key: merge(old[key], item) if key in old else item for key, item in new.items()}
        old.clear()
        old.update(items)
    elif kind is set or kind is bytearray:
        old.clear()
        (old.update if kind is set else old.extend)(new)
    elif kind is tuple and len(old) == len(new):
        items = [merge(a, b) for a, b in zip(old, new)]
        return old if all(a is b for a, b in zip(old, items)) else tuple(items)
    else:
        return old if kind is Held else new
    return old


class Held:
    """Stands for an object that stays with the program.

    What it gives comes from the program and can be anything; so no comparison with a value of the tests is asked of it.
    """

    __slots__ = ("_session", "_reference", "_plain", "_ahead")

    def __init__(self, session, reference, plain):
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_reference", reference)
        object.__setattr__(self, "_plain", plain)
        object.__setattr__(self, "_ahead", None)

    def __getattr__(self, name):
        return ask(self, "getattr", name)

    def __setattr__(self, name, value):
        ask(self, "setattr", name, value)

    def __delattr__(self, name):
        ask(self, "delattr", name)

    def __call__(self, *args, **kwargs):
        session = self._session
        arguments = session.write(args), session.write(kwargs)
        return session.perform("call", self._reference, *arguments, kept=(args, kwargs))

    def __iter__(self):
        iterator = ask(self, "iter")
        if type(iterator) is Held:
            # Read a page at a time; elements that are never looked at are not missed.
            while page := ask(iterator, "items"):
                yield from page
                if len(page) < ITEMS:
                    return
        else:
            yield from iterator

    def __instancecheck__(self, value):
        return ask(self, "isinstance", value, turned=True)

    def __subclasscheck__(self, value):
        return ask(self, "issubclass", value, turned=True)

    def __hash__(self):
        return hash(self._plain if self._plain is not Held else tuple(self._reference))

    def __bool__(self):
        return bool(self._plain) if self._plain is not Held else bool(ask(self, "bool"))

    def __str__(self):
        return text(ask(self, "str"))

    def __repr__(self):
        return text(ask(self, "repr"))

    def __enter__(self):
        return ask(self, "enter")

    def __exit__(self, kind, error, trace):
        ask(self, "exit")


def text(value):
    """Guesses become text, too."""
    return value if type(value) is str else ""


def ask(held, name, *args, turned=False):
    session = held._session
    written = [session.write(arg) for arg in args]
    return session.perform(name, *written, held._reference) if turned else session.perform(name, held._reference, *written)


def forward(name):
    return lambda self, *args: ask(self, name, *args)


for name in "complex dir float format getitem int len next reversed round setitem delitem index".split():
    setattr(Held, f"__{name}__", forward(name))


def between(name, of_data):
    """An operator: the program's own between two of its objects, else that of the plain data below the object."""

    def operate(self, other):
        if type(other) is Held and self._plain is Held:
            return ask(self, name, other)
        if self._plain is Held:
            return NotImplemented
        return of_data(self._plain, other._plain if type(other) is Held else other)

    return operate


for name in "eq ne lt le gt ge add and_ floordiv lshift matmul mod mul or_ pow rshift sub truediv xor".split():
    setattr(Held, f"__{name.strip('_')}__", between(name, getattr(operator, name)))


class Guess:
    """Stands for what is not known yet. It lets tests go on as far as it can."""

    __slots__ = ("_session", "_reference")

    def __init__(self, session, at):
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_reference", ["kept", at, 0])

    def __getattr__(self, name):
        return ask(self, "getattr", name)

    def __setattr__(self, name, value):
        ask(self, "setattr", name, value)

    __call__ = Held.__call__

    def __iter__(self):
        return iter(())

    def __next__(self):
        raise StopIteration

    def __hash__(self):
        return hash(tuple(self._reference))

    def __str__(self):
        return ""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        return None

    __repr__ = __str__
    __float__ = __complex__ = lambda self: 1.0
    __int__ = __index__ = __len__ = lambda self: 1
    __getitem__ = lambda self, key: self
    __setitem__ = __delitem__ = lambda self, *args: None


for name in "bool contains eq ne lt le gt ge instancecheck subclasscheck".split():
    setattr(Guess, f"__{name}__", lambda self, *args: True)
for name in "add and floordiv mod mul or pow sub truediv xor lshift rshift matmul".split():
    for turned in ("", "r"):
        setattr(Guess, f"__{turned}{name}__", lambda self, *args: self)
for name in "abs neg pos invert round ceil floor trunc".split():
    setattr(Guess, f"__{name}__", lambda self, *args: self)


class Names(dict):
    """The global names of the tests; what is defined nowhere else is the program's."""

    def __init__(self, session, shadowed):
        super().__init__(__builtins__=builtins, __name__="__main__")
        self.session = session
        self.shadowed = shadowed
        self.absent = {}

    def __missing__(self, name):
        if name not in self.shadowed:
            if hasattr(builtins, name):
                raise KeyError(name)
            if name in sys.stdlib_module_names:
                # Programs import `math`, and tests rely on it; they get the true one.
                try:
                    return importlib.import_module(name)
                except ImportError:
                    pass
        if name in self.absent:
            raise NameError(self.absent[name])
        try:
            value = self.session.perform("get", name)
        except NameError as error:
            # Asked once: a program that lacks what is tested needs no further run.
            self.absent[name] = str(error)
            raise
        if type(value) in (Held, Guess):
            # What may be assigned anew is asked for every time.
            self[name] = value
        return value


class Site:
    """An `assert` statement: it holds if it was reached and never failed."""

    def __init__(self, test):
        self.test = test
        self.reached = 0
        self.failure = None

    def __enter__(self):
        self.reached += 1

    def __exit__(self, kind, error, trace):
        if error is not None and self.failure is None:
            self.failure = describe(error)
        # The tests go on: each assert is a test.
        return not isinstance(error, values.Foreign)


def describe(error):
    if isinstance(error, Ended):
        return "the program was over"
    name = type(error).__name__
    message = "" if isinstance(error, AssertionError) else str(error)
    return f"{name}: {message}"[:200] if message else name


def place(body, sites):
    """Puts each `assert` of the statements into its site, but not those whose failure the tests themselves look at."""
    for i, node in enumerate(body):
        if isinstance(node, ast.Assert):
            index, names = ast.Constant(len(sites)), ast.Name("__sites__", ast.Load())
            site = ast.Subscript(names, index, ast.Load())
            sites.append(Site(node.test))
            body[i] = ast.With([ast.withitem(site)], [node])
            for made in (index, names, site, body[i]):
                ast.copy_location(made, node)
        elif isinstance(node, ast.ImportFrom) and is_program(node):
            # Not imported: the names are the program's.
            body[i] = ast.copy_location(ast.Pass(), node)
        else:
            for part in [node, *getattr(node, "handlers", ()), *getattr(node, "cases", ())]:
                for name in ("body", "orelse", "finalbody"):
                    if not (name == "body" and isinstance(part, ast.Try | ast.TryStar)):
                        place(getattr(part, name, ()), sites)


def is_program(node):
    """Whether tests import from what stands for the program's file."""
    return node.level > 0 or node.module in ("solution", "program", "main")


def stubs(tree):
    """The functions that a prompt leaves to be written: nothing but a docstring, `pass` or `...`."""

    def is_empty(statement):
        if isinstance(statement, ast.Expr):
            return isinstance(statement.value, ast.Constant)
        return isinstance(statement, ast.Pass | ast.Import | ast.ImportFrom)

    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node for node in functions if all(map(is_empty, node.body))]


def shadowed(parts, trees, unwritten):
    """The names of builtin functions that are the program's here: those called where no other name is the program's."""
    used, made = set(), set()

    def visit(table):
        for symbol in table.get_symbols():
            is_module = table.get_type() == "module"
            if symbol.is_referenced() and (is_module or symbol.is_global()):
                used.add(symbol.get_name())
            if is_module and (symbol.is_assigned() or symbol.is_imported()):
                made.add(symbol.get_name())
        for child in table.get_children():
            visit(child)

    for part in parts:
        visit(symtable.symtable(part, "tests.py", "exec"))
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and is_program(node):
                made -= {alias.asname or alias.name for alias in node.names}
    free = used - made | unwritten
    if any(not hasattr(builtins, name) and name not in sys.stdlib_module_names for name in free):
        return set()
    calls = (node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    called = {f.id for f in calls if isinstance(f, ast.Name)}
    return {name for name in free & called if hasattr(builtins, name)}


class Tests:
    def __init__(self, request):
        self.sites = []
        self.entry_point = request["entry_point"]
        parse = lambda part: ast.parse(part, "tests.py")
        self.before = [parse(part) for part in request["before"]]
        unwritten = {node for tree in self.before for node in stubs(tree)}
        for tree in self.before:
            tree.body = [node for node in tree.body if node not in unwritten]
        trees = [parse(part) for part in request["tests"]]
        names = {node.name for node in unwritten}
        parts = request["before"] + request["tests"]
        self.shadowed = {self.entry_point} if self.entry_point else shadowed(parts, trees, names)
        for tree in trees:
            place(tree.body, self.sites)
        self.units = [self.compiled(tree) for tree in trees]
        calls = [node.value.func for tree in trees for node in tree.body
                 if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
        self.calls_check = any(isinstance(f, ast.Name) and f.id == "check" for f in calls)

    @staticmethod
    def compiled(tree):
        return compile(tree, "tests.py", "exec", dont_inherit=True)

    def run(self, session):
        """Runs all units; the failures that are no site's."""
        names = Names(session, self.shadowed)
        names["__sites__"] = self.sites
        failures = []

        def attempt(f, *args):
            try:
                f(*args)
            except values.Foreign:
                raise
            except BaseException as error:
                failures.append(describe(error))

        for tree in self.before:
            attempt(exec, self.compiled(tree), names)
        if failures:
            if not session.operations:
                raise Broken(f"what the tests need does not run: {failures[0]}")
            return failures
        if self.entry_point:
            names.pop(self.entry_point, None)
        for unit in self.units:
            attempt(exec, unit, names)
        if self.entry_point and "check" in names and not self.calls_check:
            attempt(lambda: names["check"](names[self.entry_point]))
        for name, value in list(names.items()):
            if name.startswith("test_") and isinstance(value, types.FunctionType) and not value.__code__.co_argcount:
                attempt(value)
        return failures


class Broken(Exception):
    """The tests can't tell anything, whatever the program is."""


def judge(request):
    results = []
    for line in request["output"].split("\n"):
        try:
            results.append(json.loads(line))
        except (ValueError, RecursionError):
            break
    session = Session(json.loads(request["operations"]), results)
    try:
        tests = Tests(request)
        failures = tests.run(session)
    except SyntaxError as error:
        return {"broken": f"the tests are no Python: {error}"}
    except (Broken, values.Foreign) as error:
        return {"broken": str(error) if isinstance(error, Broken) else f"the tests give the program {error}"}
    if session.is_guessing:
        return {"ask": json.dumps(session.operations)}
    if not session.operations:
        return {"broken": "the tests never use the program"}
    reached = [site for site in tests.sites if site.reached]
    failed = [site for site in reached if site.failure]
    if tests.sites and not reached and not failures:
        failures = ["no assert was reached"]
    # After an error what was not reached can't be told to hold.
    count = len(tests.sites) if failures else len(reached)
    passed = len(reached) - len(failed)
    failure = f"{ast.unparse(failed[0].test)[:160]}: {failed[0].failure}" if failed else "".join(failures[:1])
    return {
        "tests": max(count, 1),
        "passed": passed if count else int(not failures),
        "holds": not failed and not failures,
        "failure": failure.encode("utf-8", "replace").decode(),
    }


def main():
    request = json.loads(sys.stdin.read())
    out = sys.stdout
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(Discard()), "utf-8", "replace")
    random.seed(0)
    verdict = judge(request)
    out.write(json.dumps(verdict))
    sys.stdout = out
