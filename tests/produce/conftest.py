from __future__ import annotations

from collections.abc import Iterator

import pytest
from shard_helpers.making import Small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small.made(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """An S3-compatible server on the loopback, with a bucket; its URI, but for the path."""
    from shard_helpers.s3 import Server

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = Server()
        server.start()
        server.make_bucket("sets")
        yield server.uri("sets")
        server.stop()
