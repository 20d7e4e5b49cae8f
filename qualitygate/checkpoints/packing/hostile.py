"""Globals that no checkpoint needs and that attacks do.

Nothing in a file is ever called, so none of these could do harm here. They are refused all the same, and by name:
whoever packed such a file meant it to run code, and the next program to open it may not be as careful.
"""

from __future__ import annotations

from qualitygate.errors import UnsafeCheckpointError

_MODULES = frozenset(
    (
        # the system, other processes, other machines
        *("os", "posix", "nt", "posixpath", "ntpath", "sys", "subprocess", "_posixsubprocess", "commands", "popen2", "pty"),
        *("shutil", "tempfile", "pathlib", "io", "_io", "mmap", "fcntl", "resource", "signal", "platform", "webbrowser"),
        *("socket", "_socket", "socketserver", "ssl", "http", "urllib", "urllib2", "xmlrpc", "ftplib", "smtplib", "telnetlib"),
        *("requests", "httpx", "aiohttp", "multiprocessing", "threading", "_thread", "concurrent", "asyncio"),
        # code, and ways to come by it
        *("builtins", "__builtin__", "importlib", "_frozen_importlib", "_frozen_importlib_external", "imp", "pkgutil"),
        *("runpy", "zipimport", "code", "codeop", "marshal", "inspect", "gc", "atexit", "operator", "_operator", "ctypes"),
        *("_ctypes", "cffi", "site", "venv", "ensurepip", "pip", "setuptools", "distutils", "idlelib", "lib2to3"),
        *("pdb", "bdb", "profile", "cProfile", "timeit", "trace", "doctest", "linecache"),
        # pickles inside pickles, past our machine
        *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"),
    )
)
_FUNCTIONS = (
    *("torch.load", "torch.serialization.load", "torch.hub.", "torch.package.", "torch.utils.cpp_extension."),
    *("torch.utils.bottleneck.", "torch._dynamo.", "torch._inductor.", "numpy.load", "numpy.fromfile", "numpy.memmap"),
    *("numpy.testing.", "numpy.f2py.", "numpy.distutils.", "types.CodeType", "types.FunctionType", "logging.config."),
)
_DATA = frozenset(
    (
        *("bool", "int", "long", "float", "complex", "str", "unicode", "bytes", "bytearray", "object", "range", "slice"),
        *("list", "tuple", "dict", "set", "frozenset"),
        *("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    )
)
"""What the modules ``builtins`` and ``pathlib`` have to offer that only holds data."""


def refuse_hostile(module: str, attribute: str) -> None:
    """Raise if a global is one of those. A dotted attribute is a walk through modules: each step is looked at.

    Raises:
        UnsafeCheckpointError: naming it.
    """
    root, *_ = module.split(".")
    if root in ("builtins", "__builtin__", "pathlib") and attribute in _DATA:
        return
    steps = {root, *attribute.split(".")[:-1]}
    if steps & _MODULES or f"{module}.{attribute}".startswith(_FUNCTIONS):
        raise unsafe(f"{module}.{attribute}")


def unsafe(name: str) -> UnsafeCheckpointError:
    """The error for a file that names something it would run."""
    return UnsafeCheckpointError(
        "The checkpoint would run code when it is opened",
        f"a reference to {ascii(name[:120])[1:-1]}",
        "weights and settings only; nothing of the file was run",
        "do not open it with other programs; ask where it comes from for a safetensors file",
    )
