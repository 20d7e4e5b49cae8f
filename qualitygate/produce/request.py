"""How shards are written. Nothing heavy is imported here: the command line shows it in its help."""

from __future__ import annotations

from enum import StrEnum

SHARD_SIZE = 2048
"""Ids in a shard."""


class Form(StrEnum):
    """How shards are written."""

    WEBDATASET = "webdataset"
    PARQUET = "parquet"
    FOLDER = "folder"

    @property
    def suffix(self) -> str:
        """Of the shard's name; a folder has none."""
        return {Form.WEBDATASET: ".tar", Form.PARQUET: ".parquet", Form.FOLDER: ""}[self]
