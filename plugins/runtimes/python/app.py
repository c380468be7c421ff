"""Python as a runtime: `execute` runs a program as `__main__` and returns its exit status.

Only what is imported here can be imported by a program: there are no files at run time. Everything is imported when the
component is made, and a run starts from that state.
"""

import asyncio.selector_events
import builtins
import gc
import importlib
import io
import os
import sys
import threading
import traceback
import types

import wit_world

# The standard library's modules that programs use and that work without files, threads and sockets.
MODULES = """
    __future__ _judge.program _judge.tests abc argparse array ast base64 bisect calendar cmath codecs collections
    collections.abc colorsys contextlib copy csv dataclasses datetime decimal difflib dis enum errno fileinput fractions
    functools gc getopt graphlib hashlib heapq hmac html html.parser inspect io ipaddress itertools json keyword
    linecache locale logging marshal math numbers operator os os.path pathlib pickle platform pprint queue random re
    reprlib secrets shlex signal stat statistics string struct symtable sys tempfile textwrap threading time timeit token tokenize
    traceback types typing unicodedata unittest unittest.mock urllib.parse uuid warnings weakref xml.etree.ElementTree
    zlib zoneinfo _ast_unparse _strptime encodings.ascii encodings.cp1252 encodings.hex_codec encodings.idna encodings.latin_1
    encodings.raw_unicode_escape encodings.rot_13 encodings.unicode_escape encodings.utf_16 encodings.utf_32 encodings.utf_8_sig
""".split()

for name in MODULES:
    importlib.import_module(name)


# A collection of garbage would write to every object there is: pages of memory that a run otherwise leaves as they are.
gc.collect()
gc.freeze()


class Exit(BaseException):
    """What `os._exit` raises here: there is no process to end."""


def leave(status):
    raise Exit(status)


os._exit = leave


def start(thread):
    """`Thread.start` where there is one thread: the other one runs to its end first."""
    if thread.ident is not None:
        raise RuntimeError("threads can only be started once")
    thread._ident = threading.get_ident()
    thread._started.set()
    try:
        thread.run()
    except SystemExit:
        pass
    except Exception:
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), thread)))


threading.Thread.start = start
threading.Thread.join = lambda thread, timeout=None: None
threading.Thread.is_alive = lambda thread: False
threading.stack_size = lambda size=0: 0

# An event loop has a pair of sockets, by which other threads and signals wake it: there are none of all three.
loop = asyncio.selector_events.BaseSelectorEventLoop
loop._make_self_pipe = loop._close_self_pipe = loop._write_to_self = lambda self: None
# `site` would define them, which needs files.
builtins.exit = builtins.quit = sys.exit


def status(code):
    """The exit status that `SystemExit` stands for."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def flush():
    """Writes what the program printed; a program may have closed or replaced its streams."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except Exception:
            pass


def run(source):
    """Runs a program, and returns its exit status."""
    try:
        code = compile(source, "program.py", "exec", dont_inherit=True)
        # So that a traceback shows lines.
        lines = source.splitlines(keepends=True)
        sys.modules["linecache"].cache["program.py"] = (len(source), None, lines, "program.py")
        main = types.ModuleType("__main__")
        main.__builtins__ = builtins
        sys.modules["__main__"] = main
        exec(code, main.__dict__)
    except SystemExit as exit:
        return status(exit.code)
    except Exit as exit:
        return status(exit.args[0])
    except BaseException as error:
        # The first frame is this one.
        shown = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, shown)
        return 1
    return 0


def output(descriptor, errors):
    """A stream of text to the world outside."""
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw, 1 << 14), "utf-8", errors)


class WitWorld(wit_world.WitWorld):
    def execute(self, source: str, stdin: str) -> int:
        sys.argv = ["program.py"]
        # Whole pages are written, not lines.
        sys.stdout = sys.__stdout__ = output(1, "replace")
        sys.stderr = sys.__stderr__ = output(2, "backslashreplace")
        sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8", "surrogatepass")), "utf-8")
        try:
            return run(source)
        finally:
            flush()
