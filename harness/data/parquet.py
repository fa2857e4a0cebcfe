"""Tables in Parquet, with paths of pictures or with the pictures themselves in a column.

Pictures inside a table are laid down once in the cache.  Reading needs `pyarrow`, which comes with
the extra `parquet`.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from harness.config import Columns
from harness.data.files import FileTree, is_image
from harness.data.json_tables import record_table
from harness.data.table_columns import IMAGE_COLUMNS, CaptionTable, NotATableError
from harness.data.unpacked import laid_down
from harness.errors import how_to_install

PARQUET = ".parquet"
_ROWS = 256
_MAGIC = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"RIFF": ".webp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


def open_parquet(name: str, files: FileTree, columns: Columns, cache: Path) -> CaptionTable:
    """The table in a .parquet file; its own pictures become files of `files`.

    Raises NotATableError when it lacks the columns, cannot be read, or pyarrow is absent.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise NotATableError(
            f"{name} needs pyarrow; {how_to_install('parquet')} brings it", broken=True
        ) from None
    loose = files.entries[name].archive is None
    try:
        file = parquet.ParquetFile(files.root / name if loose else io.BytesIO(files.read(name)))
    except (arrow.ArrowException, OSError) as error:
        raise NotATableError(f"{name} cannot be read as Parquet: {error}", broken=True) from error
    try:
        return _table(name, file, files, columns, cache)
    except (arrow.ArrowException, OSError) as error:
        raise NotATableError(f"{name} cannot be read as Parquet: {error}", broken=True) from error


def _table(name: str, file: Any, files: FileTree, columns: Columns, cache: Path) -> CaptionTable:
    inside = _pictures_column(file.schema_arrow, columns)
    loose = files.entries[name].archive is None
    if inside is not None and loose:
        tar = laid_down(files.root / name, cache, lambda out: _write_tar(file, inside, out))
        for inner, entry in FileTree(tar).entries.items():
            files.add(f"{name}/{inner}", entry)
    elif inside is not None:
        raise NotATableError(f"{name} holds pictures and is in an archive: unpack it", broken=True)
    image = columns.image or IMAGE_COLUMNS[0]
    return record_table(name, list(_records(name, file, inside, image, files)), columns)


def _pictures_column(schema: Any, columns: Columns) -> str | None:
    """The column that holds bytes of pictures: binary, or a record with `bytes`."""
    import pyarrow.types as types

    found = [
        field.name
        for field in schema
        if types.is_binary(field.type)
        or types.is_large_binary(field.type)
        or (types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]
    wanted = [columns.image] if columns.image is not None else list(IMAGE_COLUMNS)
    named = [name for known in wanted for name in found if name.casefold() == known.casefold()]
    return next(iter([*named, *found]), None)


def _write_tar(file: Any, column: str, out: IO[bytes]) -> None:
    with tarfile.open(fileobj=out, mode="w") as tar:
        row = 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=[column]):
            for cell in batch.column(0).to_pylist():
                data = cell.get("bytes") if isinstance(cell, dict) else cell
                if data:
                    member = tarfile.TarInfo(f"{row:08d}{_suffix(cell, data)}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                row += 1


def _suffix(cell: object, data: bytes) -> str:
    path = cell.get("path") if isinstance(cell, dict) else None
    if isinstance(path, str) and is_image(path):
        return path[path.rindex(".") :].lower()
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), ".jpg")


def _records(
    name: str, file: Any, inside: str | None, image: str, files: FileTree
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Each row as a record, a picture inside it by the name that it has been given."""
    by_row = {}
    if inside is not None:
        prefix = f"{name}/"
        by_row = {
            int(inner[len(prefix) :].partition(".")[0]): inner
            for inner in files.entries
            if inner.startswith(prefix)
        }
    rest = [field.name for field in file.schema_arrow if field.name != inside]
    row = 0
    for batch in file.iter_batches(batch_size=4096, columns=rest):
        for record in batch.to_pylist():
            if inside is not None:
                known = {key: value for key, value in record.items() if key not in IMAGE_COLUMNS}
                record = {**known, image: by_row.get(row)}
            yield f"{name}[{row}]", record
            row += 1
