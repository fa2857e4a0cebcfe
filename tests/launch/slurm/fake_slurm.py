"""SLURM's commands played by small scripts: what they are asked is noted, what they say is given.

<folder>/bin/      the commands, to be put on PATH
<folder>/queue     what squeue prints; sbatch adds a line
<folder>/asked     every call, a line each
<folder>/NAME.fails, NAME.hangs, NAME.says    how a command misbehaves, or what it prints
NAME.says.WORD                       what it prints when WORD is among what it is asked
"""

from __future__ import annotations

import re
from pathlib import Path

_COMMON = """#!/bin/sh
F='{folder}'; N=$(basename "$0")
echo "$N $*" >> "$F/asked"
[ -e "$F/$N.hangs" ] && exec sleep 600
[ -e "$F/$N.fails" ] && {{ cat "$F/$N.fails" >&2; exit 1; }}
"""
_SAYS = """for W; do
    [ -e "$F/$N.says.$W" ] && { cat "$F/$N.says.$W"; exit 0; }
done
[ -e "$F/$N.says" ] && cat "$F/$N.says"
exit 0
"""
_SQUEUE = """[ -e "$F/queue" ] && cat "$F/queue"
exit 0
"""
_SBATCH = """ID=$(( $(cat "$F/last" 2>/dev/null || echo 100) + 1 ))
for S; do :; done
NAME=$(sed -n 's/^#SBATCH --job-name=//p' "$S")
ARRAY=$(sed -n 's/^#SBATCH --array=//p' "$S")
[ -n "$ARRAY" ] && TASK="${ID}_[$ARRAY]" || TASK=$ID
if [ -e "$F/sbatch.refuses.$ID" ]; then cat "$F/sbatch.refuses.$ID" >&2; exit 1; fi
echo $ID > "$F/last"
cp "$S" "$F/script-$ID"
echo "$TASK|$NAME|PENDING|Priority|" >> "$F/queue"
if [ -e "$F/sbatch.loses.$ID" ]; then
    echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv" >&2; exit 1
fi
echo "Submitted batch job $ID"
"""


class FakeSlurm:
    """The commands and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name in ("sacct", "sacctmgr", "scancel", "scontrol", "sinfo", "srun"):
            self._write(name, _SAYS)
        self._write("squeue", _SQUEUE)
        self._write("sbatch", _SBATCH)

    def _write(self, name: str, text: str) -> None:
        file = self.bin / name
        file.write_text(_COMMON.format(folder=self.folder) + text)
        file.chmod(0o755)

    def says(self, name: str, text: str, *, to: str | None = None) -> None:
        """What a command prints: always, or to a call `to` is a word of."""
        (self.folder / (f"{name}.says" if to is None else f"{name}.says.{to}")).write_text(text)

    def fails(self, name: str, text: str = "it does not work") -> None:
        (self.folder / f"{name}.fails").write_text(text)

    def hangs(self, name: str) -> None:
        (self.folder / f"{name}.hangs").touch()

    def works(self, name: str) -> None:
        for how in ("fails", "hangs"):
            (self.folder / f"{name}.{how}").unlink(missing_ok=True)

    def refuses(self, job: int, text: str) -> None:
        """sbatch refuses what would be this job; the first is 101."""
        (self.folder / f"sbatch.refuses.{job}").write_text(f"sbatch: error: {text}\n")

    def loses(self, job: int) -> None:
        """sbatch takes this job and says that it could not."""
        (self.folder / f"sbatch.loses.{job}").touch()

    @property
    def queue(self) -> Path:
        return self.folder / "queue"

    def asked(self, name: str) -> list[str]:
        """The arguments of every call of a command."""
        file = self.folder / "asked"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == name]

    def script(self, job: int) -> str:
        return (self.folder / f"script-{job}").read_text()

    def option(self, job: int, name: str) -> str | None:
        """The value of an option of the script of a job."""
        found = re.search(rf"^#SBATCH --{name}=(.*)$", self.script(job), re.MULTILINE)
        return found[1].strip("'") if found else None
