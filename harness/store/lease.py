"""Who runs a run now: a claim that one process can hold and a dead one cannot keep.

A lease is a file made by link(2), which fails if the name is taken, that names its holder (host,
process, start of the process) and is touched while the holder lives.  It is dead when its process
is known to be gone on this very host, or when it has not been touched for `EXPIRY` seconds by the
clock of its own file system, so neither clock skew between hosts nor an old process number
misleads.  No flock: NFS may lack it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.errors import HarnessError
from harness.files import beside, dump_json, read_regular, telling_no_space

_MOST_BYTES = 1 << 20
EXPIRY = 120.0
"""Seconds without a beat after which a holder on another host is taken for dead."""
BEAT = 5.0
"""Seconds between two beats."""


class LeaseHeld(HarnessError):
    """Somebody else is running this run."""

    failure = "leased"


def lease_is_live(file: Path) -> bool:
    """Whether the holder of `file` still runs, as far as can be known."""
    holder = lease_holder(file)
    if holder is None:
        return False
    if holder.get("host") == socket.gethostname() and "pid" in holder:
        return _process_lives(holder)
    return _age(file) < EXPIRY


def lease_holder(file: Path) -> dict[str, Any] | None:
    """What the lease says of its holder; None without a lease.

    A lease that is empty because its writer died between creating and filling it names nobody,
    and lives until it expires.
    """
    try:
        holder = json.loads(read_regular(file, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


class ReadOnlyLease:
    """Judges leases by looking alone: for those who write no file, or may not.

    Without a file of its own it does not know the clock of the file system.  So a lease that was
    touched between two looks has `EXPIRY` seconds from then, on this process's own clock; of one
    that is seen for the first time the age is taken by the clock of this host.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[float, float]] = {}

    def __call__(self, file: Path) -> bool:
        """Whether the holder of `file` still runs, as far as can be known."""
        holder = lease_holder(file)
        if holder is None:
            self._seen.pop(file, None)
            return False
        if holder.get("host") == socket.gethostname() and "pid" in holder:
            return _process_lives(holder)
        try:
            touched = file.stat().st_mtime
        except FileNotFoundError:
            return False
        return time.monotonic() < self._deadline(file, touched)

    def _deadline(self, file: Path, touched: float) -> float:
        before, deadline = self._seen.get(file, (None, 0.0))
        if touched != before:
            age = 0.0 if before is not None else max(0.0, time.time() - touched)
            deadline = time.monotonic() + EXPIRY - age
            self._seen[file] = (touched, deadline)
        return deadline


def _process_lives(holder: dict[str, Any]) -> bool:
    import psutil  # a tenth of a second that a plan without leases need not pay

    try:
        process = psutil.Process(int(holder["pid"]))
        return (
            process.status() != psutil.STATUS_ZOMBIE
            and abs(process.create_time() - float(holder["started"])) < 2.0
        )
    except psutil.NoSuchProcess:
        return False


def _age(file: Path) -> float:
    probe = beside(file)
    try:
        probe.touch()
        now = probe.stat().st_mtime
        return now - file.stat().st_mtime
    except FileNotFoundError:
        return EXPIRY
    finally:
        probe.unlink(missing_ok=True)


class Lease:
    """Context manager that holds `file` and beats until it is left; LeaseHeld if it is taken."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._draft()
        try:
            if not self._claim(draft):
                raise LeaseHeld(f"{self.file.parent.name} is being run by {self._holder_text()}")
        finally:
            draft.unlink(missing_ok=True)
        self._beats.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._beats.join()
        if self.is_mine():
            self.file.unlink(missing_ok=True)

    def is_mine(self) -> bool:
        """Whether the file still names this holder (it may have been taken over after a stall)."""
        holder = lease_holder(self.file)
        return holder is not None and holder.get("token") == self.token

    def _draft(self) -> Path:
        import psutil

        process = psutil.Process()
        holder = {
            "host": socket.gethostname(),
            "pid": process.pid,
            "started": process.create_time(),
            "token": self.token,
            "since": round(time.time(), 3),
        }
        draft = beside(self.file)
        try:
            with telling_no_space(self.file):
                draft.write_bytes(dump_json(holder))
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        return draft

    def _claim(self, draft: Path) -> bool:
        try:
            os.link(draft, self.file)
        except FileExistsError:
            return not lease_is_live(self.file) and self._replace_dead(draft)
        except FileNotFoundError:  # the whole directory was set aside meanwhile
            return False
        return True

    def _replace_dead(self, draft: Path) -> bool:
        """Put ours in place of a dead lease; of several who try, one succeeds.

        Who may replace a lease is whoever makes the marker named after its token, and only while
        the lease still holds that token: there is no moment without a lease, and no double claim.
        """
        dead = (lease_holder(self.file) or {}).get("token", "unnamed")
        marker = self.file.with_name(f".lease.{dead}.dead")
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            if _age(marker) > EXPIRY:
                marker.unlink(missing_ok=True)
            return False
        try:
            # What was found dead a moment ago may have been replaced by one that lives.
            holds = (lease_holder(self.file) or {}).get("token", "unnamed")
            if holds != dead or lease_is_live(self.file):
                return False
            os.replace(draft, self.file)
            return True
        finally:
            marker.unlink(missing_ok=True)

    def _holder_text(self) -> str:
        holder = lease_holder(self.file) or {}
        return f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown host')}"

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            if not self.is_mine():
                return
            try:
                os.utime(self.file)
            except FileNotFoundError:
                return
