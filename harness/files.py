"""Files written whole or not at all, and what tells one content from another.

Level 0, so that both halves write the same way; knows nothing of what a file holds.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import io
import json
import math
import os
import re
import shutil
import stat
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import orjson

from harness.errors import ConfigError, RecordError

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile
    from numpy.typing import NDArray

_KEY_BYTES = 32
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
"""How a file is opened that is written to the end of; a link might lead to any other."""
MAX_JSON_BYTES = 256 << 20
"""Of a record, which is read whole."""
MAX_LOG_BYTES = 1 << 30
MAX_NPZ_BYTES = 4 << 30
MAX_MEMBER_BYTES = 1 << 30
"""Of one file of a data set, in an archive or not, which is read whole."""
LIMITS = "HARNESS_LIMITS"
"""Environment variable: by how much every limit on what is read is multiplied."""
_MOST_DIGITS = 300


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` whole or not at all: unique temporary name, fsync, replace."""
    with written(path) as file:
        file.write(data)


@contextlib.contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A file that is at `path` once all went well, with the rights that the umask leaves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    with telling_no_space(path):
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def telling_no_space(path: Path) -> Iterator[None]:
    """Of a disk that is full: which file it was, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or error.strerror == _FULL:
            raise
        raise OSError(error.errno, _FULL, str(path)) from error


def beside(path: Path, suffix: str = "tmp") -> Path:
    """A name of its own beside `path`, for what is to take its place or has had it."""
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.{suffix}")


_LEFT_OVER = re.compile(r"\..+\.(\d+\.[0-9a-f]{8}\.tmp|[0-9a-f]{32}\.dead)")
"""Drafts, and what marks a lease that is being taken over."""
_STALE_SECONDS = 3600.0
_FULL = "No space left on device: free some, and give the same command again"


def drop_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left in `folder`, an hour after they touched it.

    By a clock that was set back they touched it an hour before.
    """
    with contextlib.suppress(OSError):  # it is not there, or not ours to tidy
        for entry in list(os.scandir(folder)):
            age = abs(time.time() - entry.stat(follow_symlinks=False).st_mtime)
            if age > _STALE_SECONDS and _LEFT_OVER.fullmatch(entry.name):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def make_ready(folder: Path) -> None:
    """Before a run's folder is written to: what killed writers left in it goes, and RecordError
    where a link leads out of it."""
    for place, folders, files in os.walk(folder):
        drop_leftovers(Path(place))
        for link in filter(os.path.islink, (f"{place}/{name}" for name in folders + files)):
            inside(folder, os.path.relpath(link, folder))


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of `out` when all went well, and leaves nothing if not."""
    new, old = beside(out), beside(out, "old")
    drop_leftovers(out.parent)
    try:
        with telling_no_space(out):
            new.mkdir(parents=True)
            yield new
        if os.path.lexists(out):
            os.rename(out, old)
        os.rename(new, out)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        if os.path.lexists(old):
            os.rename(old, out)
        raise
    if old.is_symlink():
        old.unlink()
    elif old.exists():
        shutil.rmtree(old)


def append(path: Path, data: bytes) -> None:
    """Put `data` at the end of `path`, in one piece; OSError where that is a link."""
    with telling_no_space(path), open(os.open(path, APPEND, 0o666), "ab") as file:
        file.write(data)


def inside(folder: Path, name: object, *, replaced: bool = False) -> Path:
    """What a record calls `name`, a path from `folder`.

    RecordError for one that leads out of it, be it by its words or by a link.

    Args:
        replaced: the file is to be replaced or removed, so that it may be a link itself.
    """
    path = folder / name if isinstance(name, str) else folder
    try:
        real = path.parent.resolve() / path.name if replaced else path.resolve()
        plain = path != folder and ".." not in path.parts and "\0" not in path.name
        if plain and real.is_relative_to(folder.resolve()):
            return path
    except (OSError, RuntimeError, ValueError):  # links in a circle, a zero byte
        pass
    raise RecordError(f"{name!r:.200} is no file in {folder}: a record names what lies in it alone")


def home_path(text: str | Path) -> Path:
    """A path that a user gave: `~` and `~name` are homes, where there is such a user."""
    return Path(os.path.expanduser(text))


def real_path(path: Path) -> Path:
    """Absolute and without links; ConfigError where they lead in a circle."""
    try:
        return path.resolve()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{str(path)!r:.200} is no path: {error}") from None


def one_name(name: object) -> str:
    """`name`, if a file or folder can be called so; RecordError for what leads elsewhere."""
    if not isinstance(name, str) or name in {"", ".", ".."} or {"/", "\0"} & set(name):
        raise RecordError(f"{name!r:.200} is no name of a record: it would lie elsewhere")
    return name


def sha256_of(path: Path) -> str:
    """The SHA-256 of a regular file's content, in hex digits; OSError for what is none."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """The same; it is read once a process while nobody touches it."""
    stat = path.stat()
    return _sha256_at(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _sha256_at(path: Path, _changed: int, _size: int) -> str:
    return sha256_of(path)


def locked(path: Path) -> AbstractContextManager[object]:
    """Only one process of a machine at a time is in the block; `path` and `.lock` is the file."""
    from filelock import FileLock  # here: who only reads must not pay for it

    return FileLock(f"{path}.lock")


# --------------------------------------------------------------------------- one's own


def own_folder() -> Path:
    """The folder of this user's settings: `$XDG_CONFIG_HOME/harness`, else `~/.config/harness`."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else Path("~/.config").expanduser()) / "harness"


def seal(content: str) -> str:
    """What only this user can have written of `content`; empty where no key can be kept.

    An HMAC by a key of the user's, so that a copy of somebody else's folder is told from one's own.
    """
    key = _key(make=True)
    return "" if key is None else hmac.digest(key, content.encode(), "sha256").hex()


def is_sealed(content: str, given: object) -> bool:
    """Whether `given` is the seal that this user put on `content`."""
    key = _key(make=False)
    if key is None or not isinstance(given, str):
        return False
    own = hmac.digest(key, content.encode(), "sha256").hex()
    return hmac.compare_digest(own.encode(), given.encode("utf-8", "replace"))


def _key(*, make: bool) -> bytes | None:
    """With it this user's commands seal what later commands shall trust; None where it is not
    there, or others could know it."""
    try:
        file = own_folder() / "key"
        if make and not file.exists():
            _make_key(file)
        state = file.stat()
        kept = state.st_uid == os.getuid() and not state.st_mode & 0o077
        key = read_regular(file, _KEY_BYTES) if kept else b""
    except (OSError, RuntimeError):  # no home, or one that cannot be written to
        return None
    return key if len(key) == _KEY_BYTES else None


def _make_key(file: Path) -> None:
    """Of two processes that make one, the first one's counts."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".key.{uuid.uuid4().hex[:8]}.tmp")
    number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(number, "wb") as opened:
        opened.write(os.urandom(_KEY_BYTES))
    with contextlib.suppress(FileExistsError):
        os.link(draft, file)
    draft.unlink()


# --------------------------------------------------------------------------- files


def dump_json(value: object) -> bytes:
    """Strict JSON in a stable order of keys; NaN and Inf are refused (ValueError)."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode("utf-8", errors="backslashreplace")


def write_json(path: Path, value: object) -> None:
    """`dump_json` to `path`, atomically."""
    write_atomic(path, dump_json(value))


def too_large(what: str, size: float, limit: int) -> str:
    """Why `what` of `size` bytes is not read; empty where the limit, if raised, allows it."""
    given = os.environ.get(LIMITS, "1")
    allowed = limit * (int(given) if given.isascii() and given.isdecimal() else 1)
    if size <= allowed:
        return ""
    more = f"{LIMITS}={math.ceil(size / limit)} in the environment raises the limits"
    return f"{what} {size:,.0f} bytes, and {allowed:,} are read; {more}"


def open_regular(path: Path) -> BufferedReader:
    """A regular file to read from; OSError for what is none: a pipe or a device never ends."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return open(number, "rb")


def read_regular(path: Path, most: int | None) -> bytes:
    """The content of a regular file of at most `most` bytes, unless that was raised.

    Raises OSError for what is none.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and (words := too_large("it has", size, most)):
            raise OSError(errno.EFBIG, words, str(path))
        return file.read()


def bounded(read: Callable[[int], bytes], most: int) -> Iterator[bytes]:
    """What a stream's `read` gives, in blocks; OSError where that is more than `most` bytes."""
    size = 0
    while block := read(1 << 20):
        size += len(block)
        if words := too_large("it comes to over", size, most):
            raise OSError(errno.EFBIG, words)
        yield block


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`; None when it is absent; RecordError when it is not valid JSON."""
    try:
        return parse_json(read_regular(path, MAX_JSON_BYTES), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error}") from None


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """The object that is the content `data` of `path`; RecordError when it is not valid JSON."""
    try:
        value = _load(data)
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not valid JSON ({error}); delete it to start over") from None
    if not isinstance(value, dict):
        raise RecordError(f"{path} holds no JSON object")
    return value


def _load(data: bytes) -> Any:
    """orjson is several times as fast; the standard library takes the lone surrogates that a name
    may hold, and words the errors.  Neither gives NaN, an infinity or an integer that no float can
    hold: ValueError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(
            data.decode("utf-8"), parse_constant=_no_number, parse_float=_finite, parse_int=_whole
        )


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _whole(text: str) -> int:
    return int(text) if len(text) <= _MOST_DIGITS else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no number that a record can hold")


def open_npz(source: Path | IO[bytes]) -> NpzFile:
    """The arrays of an archive, of which none is larger than its content.

    Raises OSError or ValueError for what is damaged, or declares more than `MAX_NPZ_BYTES`.
    """
    import numpy as np

    if isinstance(source, Path):
        open_regular(source).close()
    try:
        archive: NpzFile = np.load(source, allow_pickle=False)
        members = archive.zip.infolist() if archive.zip is not None else []
    except (AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"it is no archive of arrays: {error}") from None
    size = sum(member.file_size for member in members)
    if words := too_large("it declares", size, MAX_NPZ_BYTES):
        raise ValueError(words)
    for member in members:
        with archive.zip.open(member) as opened:
            npy: Any = np.lib.format
            old = npy.read_magic(opened) == (1, 0)
            read = npy.read_array_header_1_0 if old else npy.read_array_header_2_0
            shape, _, dtype = read(opened)
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename} declares more than it holds")
    return archive


def read_npz(path: Path, sha256: str | None) -> dict[str, NDArray[Any]]:
    """The arrays of an archive of at most `MAX_NPZ_BYTES`, all of them read.

    Raises OSError or ValueError for what is damaged, or has another checksum where one is told.
    """
    data = read_regular(path, MAX_NPZ_BYTES)
    if sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise ValueError("its record tells another checksum")
    try:
        archive = open_npz(io.BytesIO(data))
        return {name: archive[name] for name in archive.files}
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error)) from None


def numbers_of(tree: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """The numbers of a line of a log; those of a section have its name, `terms/instance`, but for
    those of the section `metrics`."""
    found: dict[str, float] = {}
    for name, value in tree.items():
        path = f"{before}{name}"
        if isinstance(value, Mapping):
            found |= numbers_of(value, "" if path == "metrics" else f"{path}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[path] = float(value)
    return found


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; a torn last line (a killed writer) is left out."""
    try:
        lines = read_regular(path, MAX_LOG_BYTES).decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            yield parse_json(line.encode(), path)
        except RecordError:
            if number < len(lines) - 1:
                raise RecordError(f"{path}:{number} is not valid JSON") from None
