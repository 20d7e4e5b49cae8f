"""The standing demonstration: a third party's face generator, fetched from PyPI and read as data.

``gan_face_generate`` 1.1.1 (MIT licence) carries a DCGAN in the shape of the PyTorch tutorial, trained on faces: a torch zip archive
saved on a GPU. Its wheel is fetched by pip, without dependencies, pinned by version and hash. The weights are taken out of it; the
package is neither installed nor imported.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from qualitygate.checkpoints.sources import web
from qualitygate.errors import InputError
from qualitygate.storage import file_sha256

PACKAGE = "gan_face_generate==1.1.1"
WHEEL_SHA256 = "24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569"
WEIGHTS_SHA256 = "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"
_NAME = "face-dcgan.pt"


def face_generator(wheel: str | Path | None = None) -> Path:
    """Path of the face generator's checkpoint, fetched if it is not in the cache yet.

    Args:
        wheel: the wheel, where it cannot be fetched.

    Raises:
        InputError: it cannot be fetched, or is not what it should be.
    """
    with web.place(WEIGHTS_SHA256) as (home, found), tempfile.TemporaryDirectory(prefix=".", dir=home) as temporary:
        if found is not None:
            return found
        archive = Path(wheel) if wheel is not None else _fetch(Path(temporary))
        if not archive.is_file() or file_sha256(archive) != WHEEL_SHA256:
            raise InputError(
                f"{archive} is not the wheel of {PACKAGE}",
                "another file" if archive.is_file() else "no such file",
                f"SHA-256 {WHEEL_SHA256}",
                f"`pip download --no-deps {PACKAGE}` where there is a network",
            )
        weights = Path(temporary) / _NAME
        weights.write_bytes(zipfile.ZipFile(archive).read("gan_face_generate/weights.tar"))
        return web.keep(weights, home, _NAME)


def _fetch(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf8")
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--disable-pip-version-check"]
    call = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "--requirement", str(requirements)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise InputError(
            f"Cannot fetch {PACKAGE}",
            (done.stderr.strip().splitlines() or ["pip said nothing"])[-1],
            "pip and a package index that can be reached",
            "fetch the wheel elsewhere and give it with --wheel",
        )
    return wheels[0]
