"""Small data for the walk of writes: made once below a folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image


def picture(number: int) -> bytes:
    """A PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 20, 10, 10)).save(file, "PNG")
    return file.getvalue()


def folder_of_shapes(parent: Path) -> Path:
    """A folder with a table of twelve captioned pictures."""
    folder = parent / "folder"
    if not folder.exists():
        folder.mkdir()
        rows = ["image,split,caption"]
        for number in range(12):
            (folder / f"{number}.png").write_bytes(picture(number))
            rows.append(f"{number}.png,{'train' if number < 8 else 'test'},a picture {number}")
        (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


def shards_of_shapes(parent: Path) -> Path:
    """Two shards of six pictures."""
    folder = parent / "shards"
    if not folder.exists():
        for split in ("train", "test"):
            (folder / split).mkdir(parents=True)
            with tarfile.open(folder / split / "0.tar", "w") as tar:
                for number in range(6):
                    for name, data in (("png", picture(number)), ("txt", b"a picture")):
                        info = tarfile.TarInfo(f"{number}.{name}")
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
    return folder
