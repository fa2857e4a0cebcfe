"""How the tasks of an array begin, as their scripts note it: some die before any Python of ours.

    <submission>/begun/<array>-<index>    the start of the job at which its supervisor was there
    <submission>/launch/<array>-<index>   exit code, start and node of a job that ended before that
    <submission>/held.json                once three jobs died so and none got further

A setup line that leaves the shell, a node without the interpreter, srun that refuses: only the
shell of the batch script is left to say so.  It writes; everybody else reads.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from harness.errors import RecordError
from harness.files import inside, write_atomic
from harness.launch.slurm.submissions import Submission

HOLD_AFTER = 3
"""Jobs that die first, of the same error, before the sweep holds itself back."""
FAILURE = "launch"
"""Class of a run whose job died before its supervisor was there."""
_TAIL_BYTES, _TAIL_LINES, _TAIL_LETTERS = 4_000, 3, 400


@dataclass(frozen=True)
class Launch:
    """What the scripts of an array say in the shell, in the folder of the submission."""

    folder: Path
    array: int

    @property
    def definitions(self) -> list[str]:
        """`unlaunched` notes the death of a task; `begun CODE` does so unless it got further.

        A code of a signal says nothing against the launch.
        """
        reason = {
            "reason": f"the first {HOLD_AFTER} jobs died before their runs began; what they "
            f"printed is in {self.folder / 'logs'}"
        }
        return [
            f"HARNESS_NOTES={shlex.quote(str(self.folder))} HARNESS_TASK={self.array}-"
            "$SLURM_ARRAY_TASK_ID HARNESS_START=${SLURM_RESTART_COUNT:-0}",
            f"HARNESS_HELD={shlex.quote(json.dumps(reason))}",
            *_SHELL.format(hold_after=HOLD_AFTER).splitlines(),
        ]


_SHELL = """\
if [ -e "$HARNESS_NOTES/held.json" ]; then cat "$HARNESS_NOTES/held.json"; exit 0; fi
unlaunched() {{
  local code=$? notes=$HARNESS_NOTES
  trap - EXIT
  mkdir -p "$notes/launch"
  echo "$code $HARNESS_START $SLURMD_NODENAME" > "$notes/launch/$HARNESS_TASK"
  if [ ! -e "$notes/begun" ] && [ "$(ls "$notes/launch" | wc -l)" -ge {hold_after} ]; then
    echo "$HARNESS_HELD" > "$notes/.$HARNESS_TASK" && mv "$notes/.$HARNESS_TASK" "$notes/held.json"
  fi
  exit $code
}}
begun() {{
  [ "$1" -lt 128 ] || return 0
  [ "$(cat "$HARNESS_NOTES/begun/$HARNESS_TASK" 2>/dev/null)" = "$HARNESS_START" ] && return 0
  (exit "$1")
  unlaunched
}}"""


def note_begin(submission: Submission, array: int, index: int, restarts: int) -> None:
    """Say that the supervisor of a task is there."""
    write_atomic(submission.folder / "begun" / f"{array}-{index}", str(restarts).encode())


def _read(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").split()
    except FileNotFoundError:
        return []


def has_begun(submission: Submission) -> bool:
    """Whether any task of the submission got as far as its supervisor."""
    return (submission.folder / "begun").exists()


@dataclass(frozen=True)
class LaunchDeath:
    """A task whose last start ended before its supervisor was there."""

    code: int
    node: str
    log: Path
    """What the job printed."""

    @property
    def error(self) -> str:
        """The exit code, and the last lines that the job printed."""
        last = " | ".join(_last_lines(self.log))[-_TAIL_LETTERS:]
        return f"its job died before it began (exit code {self.code}): {last or 'without a word'}"


def launch_death(submission: Submission, array: int, index: int) -> LaunchDeath | None:
    """How the last start of a task ended, if that was before its supervisor was there."""
    name = f"{array}-{index}"
    match _read(submission.folder / "launch" / name):
        case [code, start, *node] if code.isdigit() and start.isdigit():
            begun = _read(submission.folder / "begun" / name)
            if begun and begun[0].isdigit() and int(begun[0]) >= int(start):
                return None
            log = submission.log(array, index)
            return LaunchDeath(int(code), "".join(node[:1]), log)
    return None


def _last_lines(log: Path) -> list[str]:
    """The last of what a job printed; nothing where a link leads out of the submission."""
    try:
        with inside(log.parents[1], f"{log.parent.name}/{log.name}").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            text = file.read().decode(errors="backslashreplace")
    except (RecordError, FileNotFoundError):
        return []
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
