"""What the verdicts of a report are worth, simulated: `verdicts.py` under the name it is asked for.

python tests/benchmarks/statistics.py [--sweeps 4000] [--jobs 2] [--json FILE] [--only WORD]
python tests/benchmarks/statistics.py --sequential [--sweeps 2000]  # seeds until decided: looks.py
"""

import runpy
import sys
import sysconfig
from pathlib import Path

if __name__ == "__main__":
    del sys.path[0]  # a script's own folder is searched first, and `statistics` is in it
    named = "looks.py" if "--sequential" in sys.argv else "verdicts.py"
    runpy.run_path(str(Path(__file__).with_name(named)), run_name="__main__")
else:  # another script of this folder asks for the standard library's module, which this one hides
    _real = Path(sysconfig.get_path("stdlib"), "statistics.py")
    exec(compile(_real.read_text(encoding="utf-8"), str(_real), "exec"))
