"""An S3-compatible server of this process, which can go away and come back with what it holds."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Server:
    port: int = field(default_factory=free_port)
    _server: Any = None

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def make_bucket(self, name: str) -> None:
        files = S3FileSystem(
            access_key="test",
            secret_key="test",
            scheme="http",
            endpoint_override=f"127.0.0.1:{self.port}",
            region="us-east-1",
            allow_bucket_creation=True,
        )
        files.create_dir(name)

    def uri(self, bucket: str) -> str:
        return f"s3://{bucket}/{{}}?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"
