"""What the first bytes of a file look like, in words."""

from __future__ import annotations

_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, which stands for a file that was not fetched"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK", "a zip archive without files, or a part of one"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"7z\xbc\xaf", "a 7-zip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"GGUF", "a GGUF model"),
    (b"\x80", "a pickle"),
    (b"{", "JSON text"),
)
_WEB_PAGES = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--")
_PICKLE_STARTS = b"\x80()]}cidlILJKMNFGSTUXV"
"""First bytes of pickles: the mark of protocols 2 to 5, or an instruction that can come first in protocol 0 or 1."""


def described(start: bytes) -> str:
    """The kind of file that begins like this, and its first bytes, e.g. ``"gzip-compressed data (1f 8b 08 00 …)"``."""
    shown = " ".join(f"{byte:02x}" for byte in start[:8])
    if is_web_page(start):
        return "a web page"
    kind = next((kind for signature, kind in _SIGNATURES if start.startswith(signature)), None)
    if kind is None:
        kind = "text" if start.isascii() and start.decode("ascii").isprintable() else "unknown bytes"
    return f"{kind} ({shown} …)"


def is_web_page(start: bytes) -> bool:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_WEB_PAGES)


def is_pointer(start: bytes) -> bool:
    """Whether a file is what Git LFS leaves in place of one that was not fetched."""
    return start.startswith(_SIGNATURES[0][0])


def may_be_pickle(start: bytes) -> bool:
    return start[:1] in {bytes([byte]) for byte in _PICKLE_STARTS}
