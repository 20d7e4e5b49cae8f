"""Where checkpoints come from: a real web server on this machine, a real MLflow store, and a stand-in for the hub."""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from qualitygate import storage
from qualitygate.checkpoints.load import load_checkpoint
from qualitygate.checkpoints.sources import resolve, shown, web
from qualitygate.errors import CheckpointError, InputError, MissingExtraError, StorageError, TrackingError
from qualitygate.mlflow_client import connect, experiment_id

CONTENT = bytes(range(256)) * 12_345  # some pieces of a download


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(web, "PAUSE", 0.0)
    return tmp_path / "cache"


# the web


@dataclass
class Site:
    """What a server has, how it behaves, and what it was asked."""

    content: bytes = CONTENT
    tag: str = '"first"'
    breaks_after: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off, one of them each."""
    seconds: float = 0.0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    def url(self, name: str = "model.pt") -> str:
        return f"{self.address}/files/{name}#sha256={sha256(self.content)}"


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.asked.append((self.path, asked))
            if "missing" in self.path or "moved" in self.path:
                self.send_response(404 if "missing" in self.path else 302)
                self.send_header("Location", "http://somewhere.invalid/model.pt")
                self.end_headers()
                return
            time.sleep(site.seconds)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if self.headers.get("If-Range", site.tag) != site.tag:
                start = 0
            if start >= len(site.content):
                self.send_response(416)
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("ETag", site.tag)
            self.send_header("Content-Length", str(len(site.content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            self.end_headers()
            stop = start + site.breaks_after.pop(0) if site.breaks_after else len(site.content)
            self.wfile.write(site.content[start:stop])

        def log_message(self, *_: Any) -> None:
            """Silent."""

    return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(site)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        site.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield site
        server.shutdown()
        thread.join()


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".part*"))


def test_a_download_is_verified_kept_and_not_asked_for_again(site: Site, cache_folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = resolve(site.url(), progress=lambda done, total: seen.append((done, total)))
    assert path == cache_folder / sha256(CONTENT) / "model.pt"
    assert path.read_bytes() == CONTENT
    assert hidden(cache_folder) == []
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert resolve(site.url()) == path
    assert resolve(f"{site.address}/files/model.pt", sha256(CONTENT).upper()) == path
    assert len(site.asked) == 1


def test_a_file_changed_in_the_cache_is_fetched_again(site: Site) -> None:
    path = resolve(site.url())
    path.write_bytes(b"something else")
    assert resolve(site.url()).read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_a_download_that_breaks_off_is_continued_at_once(site: Site) -> None:
    site.breaks_after = [20 * web._PIECE, 6 * web._PIECE]
    assert resolve(site.url()).read_bytes() == CONTENT
    assert [asked for _, asked in site.asked] == [None, "bytes=1310720-", "bytes=1703936-"]


def test_a_download_that_was_given_up_is_continued_by_the_next_call(site: Site, cache_folder: Path) -> None:
    site.breaks_after = [10 * web._PIECE, 0, 0, 0]
    with pytest.raises(StorageError, match=r"(?s)could not be downloaded.*655,360 bytes are there and will be continued"):
        resolve(site.url())
    assert hidden(cache_folder) == [".part", ".part.version"]
    assert resolve(site.url()).read_bytes() == CONTENT
    assert site.asked[-1][1] == "bytes=655360-"
    assert hidden(cache_folder) == []


def test_an_interrupted_download_leaves_a_part_that_is_continued(site: Site, cache_folder: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve(site.url(), progress=interrupt)
    assert hidden(cache_folder) == [".part", ".part.version"]
    assert resolve(site.url()).read_bytes() == CONTENT
    assert site.asked[-1][1] == f"bytes={web._PIECE}-"


def test_a_part_that_is_complete_is_only_verified(site: Site, cache_folder: Path) -> None:
    home = cache_folder / sha256(CONTENT)
    home.mkdir(parents=True)
    (home / ".part").write_bytes(CONTENT)
    (home / ".part.version").write_text(site.tag)
    assert resolve(site.url()).read_bytes() == CONTENT
    assert site.asked == [("/files/model.pt", f"bytes={len(CONTENT)}-")]


def test_a_part_of_another_version_is_not_continued(site: Site, cache_folder: Path) -> None:
    home = cache_folder / sha256(CONTENT)
    home.mkdir(parents=True)
    (home / ".part").write_bytes(b"of the version before")
    (home / ".part.version").write_text('"an older one"')
    assert resolve(site.url()).read_bytes() == CONTENT


def test_a_part_of_unknown_version_is_not_continued(site: Site, cache_folder: Path) -> None:
    home = cache_folder / sha256(CONTENT)
    home.mkdir(parents=True)
    (home / ".part").write_bytes(b"of who knows what")
    assert resolve(site.url()).read_bytes() == CONTENT
    assert site.asked[-1][1] is None


def test_wrong_content_names_both_hashes_and_is_thrown_away(site: Site, cache_folder: Path) -> None:
    other = sha256(b"other")
    with pytest.raises(CheckpointError, match=rf"(?s){sha256(CONTENT)}.*{other}"):
        resolve(f"{site.address}/model.pt", other)
    assert [path.name for path in (cache_folder / other).iterdir()] == [".lock"]


def test_a_missing_file_is_not_asked_for_again(site: Site) -> None:
    with pytest.raises(InputError, match=r"(?s)missing\.pt cannot be downloaded.*404"):
        resolve(site.url("missing.pt"))
    assert len(site.asked) == 1


def test_nothing_is_read_over_plain_http(site: Site) -> None:
    with pytest.raises(InputError, match="without https"):
        resolve(f"http://example.org/model.pt#sha256={sha256(b'')}")
    with pytest.raises(InputError, match=r"(?s)somewhere\.invalid.*without https"):
        resolve(site.url("moved.pt"))
    assert len(site.asked) == 1


def test_a_server_that_is_not_there(site: Site) -> None:
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9/model.pt could not be downloaded"):
        resolve(f"http://me:secret@127.0.0.1:9/model.pt?signature=secret#sha256={sha256(b'')}")


def test_secrets_in_an_address_are_not_shown() -> None:
    with pytest.raises(InputError) as raised:
        resolve("https://me:secret@example.org/model.pt?signature=secret")
    assert "secret" not in str(raised.value)
    assert "https://example.org/model.pt could be any file" in str(raised.value)
    assert "--sha256" in str(raised.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://me:secret@example.org/g.pt?X-Amz-Signature=secret#sha256=ab", "https://example.org/g.pt"),
        ("HTTPS://me:secret@example.org:8443/g.pt#secret", "https://example.org:8443/g.pt"),
        ("models:/faces@champion#sha256=ab", "models:/faces@champion"),
        ("hf://owner/name/g.pt@main", "hf://owner/name/g.pt@main"),
        ("runs/a?b#c/g.pt#sha256=ab", "runs/a?b#c/g.pt"),
        ("module:mine:make", "module:mine:make"),
    ],
)
def test_what_a_record_says_of_a_source(source: str, said: str) -> None:
    assert shown(source) == said


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://bucket/model.pt", "no place that a checkpoint can be read from"),
        ("https:///model.pt", "no host"),
        ("https://host:port/model.pt", "no address"),
        ("https://host/model.pt#sha256=abc", r"(?s)no SHA-256.*64 hexadecimal digits"),
        ("models:/name", r"(?s)no place in MLflow.*models:/name/version"),
        ("models:/name/latest", "no place in MLflow"),
        ("hf://owner/name", r"hf://owner/name/file"),
    ],
)
def test_sources_that_make_no_sense(source: str, message: str, database: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(source, tracking_uri=database)


def test_two_hashes_that_contradict_each_other(site: Site) -> None:
    with pytest.raises(InputError, match="another SHA-256 than the one given"):
        resolve(site.url(), sha256(b"other"))


def test_a_path_is_checked_only_if_a_hash_is_given(tmp_path: Path, cache_folder: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(CONTENT)
    assert resolve(path) == resolve(str(path), sha256(CONTENT)) == resolve(f"{path}#sha256={sha256(CONTENT)}") == path
    with pytest.raises(CheckpointError, match=rf"(?s)model\.pt is another file.*{sha256(CONTENT)}.*{sha256(b'')}"):
        resolve(path, sha256(b""))
    assert not cache_folder.exists()


def test_the_cache_is_where_the_platform_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUALITYGATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert storage.cache_folder() == tmp_path / "xdg" / "qualitygate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.cache_folder() == tmp_path / ".cache" / "qualitygate"


def test_a_cache_that_cannot_be_written(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUALITYGATE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="Cannot write"):
        resolve(site.url())


def test_two_processes_fetch_a_file_once(site: Site) -> None:
    site.seconds = 0.3
    with multiprocessing.get_context("fork").Pool(2) as pool:
        first, second = pool.map(resolve, [site.url(), site.url()])
    assert first == second
    assert first.read_bytes() == CONTENT
    assert len(site.asked) == 1


# MLflow


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    with connect(uri):
        pass
    return uri


@pytest.fixture(scope="module")
def run_id(database: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run with two snapshots and a folder of the hub's kind; a model with two versions, the first one a champion."""
    folder = tmp_path_factory.mktemp("artifacts")
    (folder / "early.pt").write_bytes(b"early")
    (folder / "late.pt").write_bytes(b"late")
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"deep")
    (folder / "notes.txt").write_text("notes")
    with connect(database) as client:
        run = client.create_run(experiment_id(client, database, "training")).info
        for name in ("early.pt", "late.pt", "notes.txt"):
            client.log_artifact(run.run_id, folder / name, "snapshots")
            if name != "late.pt":
                client.log_artifact(run.run_id, folder / name, "first")
        for name in ("config.json", "pytorch_model.bin"):
            client.log_artifact(run.run_id, folder / name, "deep")
        client.create_registered_model("faces")
        client.create_model_version("faces", f"{run.artifact_uri}/first", run.run_id)
        client.create_model_version("faces", f"{run.artifact_uri}/snapshots", run.run_id)
        client.create_model_version("faces", f"{run.artifact_uri}/deep", run.run_id)
        client.set_registered_model_alias("faces", "champion", "1")
    return run.run_id


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("models:/faces/1", b"early"),
        ("models:/faces@champion", b"early"),
        ("models:/faces/2/late.pt", b"late"),
        ("runs:/{run}/snapshots/late.pt", b"late"),
        ("runs:/{run}/first", b"early"),
    ],
)
def test_a_checkpoint_of_mlflow(source: str, content: bytes, database: str, run_id: str, cache_folder: Path) -> None:
    path = resolve(source.format(run=run_id), tracking_uri=database)
    assert path.read_bytes() == content
    assert path.parent == cache_folder / sha256(content)
    assert {one.name for one in cache_folder.iterdir()} == {sha256(content)}


@pytest.mark.parametrize("source", ["models:/faces/3", "runs:/{run}/deep"])
def test_a_folder_of_the_hubs_kind_stays_together(source: str, database: str, run_id: str) -> None:
    path = resolve(source.format(run=run_id), tracking_uri=database)
    assert (path / "config.json").read_text() == "{}"
    assert (path / "pytorch_model.bin").read_bytes() == b"deep"


def test_the_address_of_mlflow_is_taken_from_the_environment(database: str, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert resolve("models:/faces/1").read_bytes() == b"early"


def test_with_a_hash_mlflow_is_asked_only_once(database: str, run_id: str) -> None:
    source = f"models:/faces/1#sha256={sha256(b'early')}"
    path = resolve(source, tracking_uri=database)
    assert resolve(source, tracking_uri="http://127.0.0.1:9") == path
    with pytest.raises(CheckpointError, match="is another file than the one meant"):
        resolve(f"models:/faces/2/late.pt#sha256={sha256(b'other')}", tracking_uri=database)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("models:/faces/2", r"(?s)not one checkpoint.*early\.pt, late\.pt.*append /path"),
        ("models:/faces/9", r"(?s)has nothing of that name.*version=9"),
        ("models:/nobody/1", "(?s)has nothing of that name.*nobody"),
        ("models:/faces@nobody", "(?s)has nothing of that name.*nobody"),
        ("runs:/0123456789abcdef0123456789abcdef/model.pt", "(?s)has nothing of that name.*0123"),
        ("runs:/{run}/nothing.pt", r"(?s)has nothing of that name.*nothing\.pt"),
        ("runs:/{run}", r"(?s)not one checkpoint.*append /path"),
        ("runs:/{run}/../../../etc", "has nothing of that name"),
    ],
)
def test_what_mlflow_does_not_have(source: str, message: str, database: str, run_id: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(source.format(run=run_id), tracking_uri=database)


def test_mlflow_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
        resolve("models:/faces/1", tracking_uri=f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(TrackingError, match="cannot be reached"):
        resolve("models:/faces/1", tracking_uri="http://127.0.0.1:9")


# the hub: a stand-in for its library, whose names and errors are the real ones; the hub itself is not reached


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    errors = ModuleType("huggingface_hub.errors")
    http = type("HfHubHTTPError", (OSError,), {})
    for name, bases in (
        ("RepositoryNotFoundError", (http,)),
        ("RevisionNotFoundError", (http,)),
        ("EntryNotFoundError", (Exception,)),
        ("HFValidationError", (ValueError,)),
        ("HfHubHTTPError", (http,)),
    ):
        setattr(errors, name, type(name, bases, {}))
    errors.LocalEntryNotFoundError = type("LocalEntryNotFoundError", (errors.EntryNotFoundError, FileNotFoundError), {})
    calls = SimpleNamespace(asked=[], error=None, errors=errors)
    (tmp_path / "model.safetensors").write_bytes(CONTENT)

    def hf_hub_download(repo_id: str, filename: str, *, revision: str | None = None) -> str:
        calls.asked.append((repo_id, filename, revision))
        if calls.error is not None:
            raise calls.error
        return str(tmp_path / "model.safetensors")

    library = ModuleType("huggingface_hub")
    library.hf_hub_download, library.errors = hf_hub_download, errors
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return calls


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("hf://owner/name/model.safetensors", ("owner/name", "model.safetensors", None)),
        ("hf://owner/name/deep/model.safetensors@v1.0", ("owner/name", "deep/model.safetensors", "v1.0")),
        ("hf://owner/name/model.safetensors@refs/pr/1", ("owner/name", "model.safetensors", "refs/pr/1")),
    ],
)
def test_a_file_of_the_hub(source: str, asked: tuple[str, str, str | None], hub: SimpleNamespace) -> None:
    assert resolve(source).read_bytes() == CONTENT
    assert hub.asked == [asked]
    with pytest.raises(CheckpointError, match="is another file than the one meant"):
        resolve(source, sha256(b""))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("RepositoryNotFoundError", InputError),
        ("RevisionNotFoundError", InputError),
        ("EntryNotFoundError", InputError),
        ("HFValidationError", InputError),
        ("LocalEntryNotFoundError", StorageError),
        ("HfHubHTTPError", StorageError),
    ],
)
def test_what_the_hub_does_not_give(error: str, expected: type[Exception], hub: SimpleNamespace) -> None:
    hub.error = getattr(hub.errors, error)("because of something\nand more")
    with pytest.raises(expected, match=r"hf://owner/name/model\.pt could|cannot be downloaded") as raised:
        resolve("hf://owner/name/model.pt")
    assert type(raised.value) is expected
    assert f"{error}: because of something" in str(raised.value)


def test_the_hub_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match="pip install huggingface_hub"):
        resolve("hf://owner/name/model.pt")


# all the way


def test_a_generator_from_the_web(site: Site, tmp_path: Path) -> None:
    torch.save(
        {
            "main.0.weight": torch.ones(8, 4, 4, 4),
            "main.1.running_mean": torch.zeros(4),
            "main.1.weight": torch.ones(4),
            "main.1.bias": torch.ones(4),
            "main.1.running_var": torch.ones(4),
            "main.3.weight": torch.ones(4, 3, 4, 4),
        },
        tmp_path / "local.pt",
    )
    site.content = (tmp_path / "local.pt").read_bytes()
    loaded = load_checkpoint(site.url("celeba.pt"))
    assert loaded.generator.family == "dcgan"
    assert loaded.generator.identity().name == "celeba.pt"
    assert loaded.generator.identity().sha256 == sha256(site.content)
