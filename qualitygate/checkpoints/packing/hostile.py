"""Globals that no checkpoint needs and that attacks do.

Nothing in a file is ever called, so none of these could do harm here. They are refused all the same, and by name: whoever
packed such a file meant it to run code, and the next program to open it may not be as careful.
"""

from __future__ import annotations

from qualitygate.errors import UnsafeCheckpointError

_MODULES = frozenset({
    "_frozen_importlib", "_frozen_importlib_external", "_io", "_operator", "_pickle", "_posixsubprocess", "_socket", "_thread",
    "__builtin__", "aiohttp", "asyncio", "atexit", "bdb", "builtins", "cPickle", "cProfile", "cffi", "cloudpickle", "code",
    "codeop", "commands", "concurrent", "ctypes", "_ctypes", "dill", "distutils", "doctest", "ensurepip", "fcntl", "ftplib",
    "gc", "http", "httpx", "idlelib", "imp", "importlib", "inspect", "io", "joblib", "lib2to3", "linecache", "marshal", "mmap",
    "multiprocessing", "nt", "ntpath", "operator", "os", "pathlib", "pdb", "pickle", "pip", "pkgutil", "platform", "popen2",
    "posix", "posixpath", "profile", "pty", "requests", "resource", "runpy", "setuptools", "shelve", "shutil", "signal", "site",
    "smtplib", "socket", "socketserver", "ssl", "subprocess", "sys", "telnetlib", "tempfile", "threading", "timeit", "trace",
    "urllib", "urllib2", "venv", "webbrowser", "xmlrpc", "zipimport",
})  # fmt: skip
_FUNCTIONS = (
    "torch.hub.", "torch.load", "torch.serialization.load", "torch.package.", "torch.utils.cpp_extension.",
    "torch.utils.bottleneck.", "torch._dynamo.", "torch._inductor.", "numpy.testing.", "numpy.f2py.", "numpy.distutils.",
    "numpy.load", "numpy.fromfile", "numpy.memmap", "types.CodeType", "types.FunctionType", "logging.config.",
)  # fmt: skip
_DATA = frozenset({
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "long", "object", "range", "set"),
    *("slice", "str", "tuple", "unicode", "Path", "PurePath", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
})  # fmt: skip
"""What the modules ``builtins`` and ``pathlib`` have to offer that only holds data."""


def refuse_hostile(module: str, attribute: str) -> None:
    """Raise if a global is one of those. A dotted attribute is a walk from module to module, and looked at step by step.

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
