"""How images are written: the format of their files, and its one setting."""

from __future__ import annotations

from enum import StrEnum

from qualitygate.records import Record


class ImageFormat(StrEnum):
    PNG = "png"
    WEBP = "webp"
    JPEG = "jpeg"


class ImageEncoding(Record):
    """Format of an image file: PNG loses nothing, WebP and JPEG do at every quality. PNG of level 1 is what all images were before there
    was a choice."""

    format: ImageFormat = ImageFormat.PNG
    level: int | None = 1
    """Of PNG's compression, 0 to 9: 1 is twice as fast as the usual 6 for some per cent of size. None for other formats."""
    quality: int | None = None
    """Of WebP and JPEG, 1 to 100. None for PNG."""

    @property
    def suffix(self) -> str:
        """Of file names, without a dot."""
        return "jpg" if self.format == ImageFormat.JPEG else str(self.format)

    def __str__(self) -> str:
        return f"png, level {self.level}" if self.format == ImageFormat.PNG else f"{self.format}, quality {self.quality}"
