"""Globals that no checkpoint needs and that attacks do.

Nothing in a file is ever called, so none of these could do harm here. They are refused all the same, and by name: whoever packed such a file meant it
to run code, and the next program to open it may not be as careful.
"""

from __future__ import annotations

from qualitygate.errors import UnsafeCheckpointError

_MODULES = frozenset(
    """
    os posix posixpath nt ntpath subprocess _posixsubprocess sys importlib _frozen_importlib _frozen_importlib_external imp runpy pkgutil pty
    socket socketserver _socket ssl shutil ctypes _ctypes cffi platform signal multiprocessing threading _thread asyncio concurrent
    code codeop commands popen2 pdb bdb cProfile profile timeit trace doctest inspect gc atexit site venv ensurepip pip setuptools
    distutils webbrowser http urllib urllib2 requests aiohttp httpx ftplib smtplib telnetlib xmlrpc tempfile pathlib glob io _io
    builtins __builtin__ __main__.os marshal pickle _pickle cPickle shelve dill cloudpickle joblib operator _operator functools.reduce
    idlelib lib2to3 tkinter logging.config yaml jinja2 mmap fcntl resource faulthandler linecache zipimport types.CodeType types.FunctionType
    torch.hub torch.utils.cpp_extension torch.utils.bottleneck torch.jit.unsupported_tensor_ops torch._dynamo torch._inductor torch.storage.UntypedStorage.from_file
    torch.load torch.serialization.load torch.package numpy.testing numpy.f2py numpy.distutils numpy.load numpy.fromfile numpy.memmap
    """.split()
)
_HARMLESS_BUILTINS = frozenset(
    "bool bytearray bytes complex dict float frozenset int list long object range set slice str tuple unicode NoneType".split()
)
_HARMLESS_PATHS = frozenset("Path PurePath PosixPath WindowsPath PurePosixPath PureWindowsPath".split())


def refuse_hostile(name: str) -> None:
    """Raise if a global is one of those.

    Raises:
        UnsafeCheckpointError: naming it.
    """
    module, _, attribute = name.rpartition(".")
    if module in ("builtins", "__builtin__") and attribute in _HARMLESS_BUILTINS:
        return
    if module.split(".")[0] == "pathlib" and attribute in _HARMLESS_PATHS:
        return
    parts = name.split(".")
    if any(".".join(parts[:length]) in _MODULES for length in range(1, len(parts) + 1)):
        raise unsafe(name)


def unsafe(name: str) -> UnsafeCheckpointError:
    """The error for a file that names something it would run."""
    return UnsafeCheckpointError(
        "The checkpoint would run code when it is opened",
        f"a reference to {name[:120]!a}",
        "weights and settings only; nothing of the file was run",
        "do not open it with other programs; ask where it comes from for a safetensors file",
    )
