"""A SLURM cluster of its own on one machine, for as long as somebody wants it.

    python -m tests.slurm.cluster up BASE      start one, and print the line that a shell needs
    python -m tests.slurm.cluster down BASE    end what `up` started

Everything (key, sockets, database, logs, process numbers) lies below BASE, ports are free ones, and
only processes whose number and start are written there are ever ended.  Needs no systemd, no cgroup
and no entry in /etc/hosts.  `Cluster` is a view of BASE: any process that sees the folder may break
a node and mend it.  Knows nothing of the harness.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

PACKAGES = (
    "slurmctld",
    "slurmd",
    "slurm-client",
    "munge",
    "slurmdbd",
    "mariadb-server",
    "slurm-wlm-basic-plugins",
)
INSTALL = f"apt-get install -y --no-install-recommends {' '.join(PACKAGES)}"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "slurmdbd", "mariadbd")

START_SECONDS = 900.0
STOP_SECONDS = 120.0
CREDENTIAL_SECONDS = 30
"""How long a credential is good for; a requeued job waits as long, and a node a busy machine keeps
waiting longer than this to start a task refuses it."""
NODE_SECONDS = 120
"""A node that is silent for so long is down: longer than a busy machine keeps a living one."""
BASE_LENGTH = 55
"""A step's socket lies 50 letters deeper, and the kernel takes 107."""
DATABASE = "accounting"


class ClusterError(Exception):
    """The cluster does not do what was asked, with the last words of the daemon concerned."""


def missing() -> str | None:
    """What to install, if a program is not there."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    absent = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    return f"no {', '.join(absent)} here: {INSTALL}" if absent else None


@dataclass(frozen=True)
class Layout:
    """What a cluster looks like."""

    nodes: int = 3
    cpus: int = 4
    memory_mb: int = 20_000
    gpus: int = 2
    accounting: bool = True
    enforce: bool = False
    """Whether the limits in accounting hold."""
    max_array_size: int = 1001
    grace_seconds: int = 60
    """Between the signal and the end of a job that a higher partition displaces."""


# --------------------------------------------------------------------------- configuration


def _slurm_conf(base: Path, layout: Layout, ports: Mapping[str, int]) -> str:
    user = getpass.getuser()
    host = socket.gethostname().partition(".")[0]
    socket_file = base / "munge.sock"
    accounting = "AccountingStorageType=accounting_storage/none"
    if layout.accounting:
        accounting = "\n".join(
            [
                "AccountingStorageType=accounting_storage/slurmdbd",
                "AccountingStorageHost=127.0.0.1",
                f"AccountingStoragePort={ports['slurmdbd']}",
                # The socket once more: sacctmgr looks here alone, and hangs on the system's own.
                f"AccountingStoragePass={socket_file}",
                "AccountingStorageTRES=gres/gpu",
                *(["AccountingStorageEnforce=limits"] if layout.enforce else []),
            ]
        )
    gres = f"Gres=gpu:fake:{layout.gpus}" if layout.gpus else ""
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[name]} "
        f"CPUs={layout.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={layout.cpus} "
        f"ThreadsPerCore=1 RealMemory={layout.memory_mb} {gres} State=UNKNOWN"
        for name in node_names(layout)
    ]
    return f"""\
ClusterName=harness
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports["slurmctld"]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={socket_file},cred_expire={CREDENTIAL_SECONDS}
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
# No cgroups, and nodes with more cores than the machine has.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=512
# Memory is looked at every two seconds; otherwise no job would be ended for it.
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
# However busy the machine is: what these bound ends by itself.
KillWait=30
MessageTimeout=90
TCPTimeout=30
BatchStartTimeout=120
UnkillableStepTimeout=300
SlurmdTimeout={NODE_SECONDS}
SlurmctldTimeout=120
InactiveLimit=0
MinJobAge=300
MaxJobCount=20000
MaxArraySize={layout.max_array_size}
{"GresTypes=gpu" if layout.gpus else ""}
{accounting}
{chr(10).join(nodes)}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 PriorityTier=10 \
PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE DefaultTime=60 PriorityTier=1 \
PreemptMode=REQUEUE GraceTime={layout.grace_seconds}
"""


def _gres_conf(base: Path, layout: Layout) -> str:
    if not layout.gpus:
        return ""
    names, last = ",".join(node_names(layout)), layout.gpus - 1
    return f"NodeName={names} Name=gpu Type=fake File={base}/gpu[0-{last}] Flags=nvidia_gpu_env\n"


def _slurmdbd_conf(base: Path, ports: Mapping[str, int]) -> str:
    return f"""\
AuthType=auth/munge
AuthInfo={base}/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports["slurmdbd"]}
SlurmUser={getpass.getuser()}
PidFile={base}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports["mariadbd"]}
StorageUser=slurm
StoragePass=slurm
StorageLoc={DATABASE}
"""


def node_names(layout: Layout) -> list[str]:
    """Names of the nodes: their loopback address in hexadecimal.

    The processes of a job find one another by the name of a node, and so it has to be an address
    without anybody's help.
    """
    return [f"0x7f{number:06x}" for number in range(1, layout.nodes + 1)]


def _stand_in(device: Path) -> None:
    """A file in the place of a GPU; only root's look enough like one to get a number in a job."""
    device.unlink(missing_ok=True)
    if os.geteuid() == 0:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    else:
        device.touch()


def _free_ports(names: Sequence[str]) -> dict[str, int]:
    """A port for each name, below those that the system hands out to whoever connects."""
    found: dict[str, int] = {}
    for port in random.SystemRandom().sample(range(15_000, 32_000), 1_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found[names[len(found)]] = port
        if len(found) == len(names):
            return found
    raise ClusterError("no free port")


# --------------------------------------------------------------------------- the cluster


class Cluster:
    """The cluster below `base`, running or not."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.conf = base / "slurm.conf"

    @property
    def layout(self) -> Layout:
        """What it was made with."""
        return Layout(**json.loads((self.base / "layout.json").read_text()))

    @property
    def nodes(self) -> list[str]:
        """The names of its nodes."""
        return node_names(self.layout)

    @property
    def environment(self) -> dict[str, str]:
        """Of a shell on its login node: this process's, but for traces of another cluster."""
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_"))
        }
        return {**own, "SLURM_CONF": str(self.conf)}

    # ---- all of it

    def start(self, layout: Layout) -> None:
        """Start every daemon, and return when all nodes are idle."""
        if len(str(self.base)) > BASE_LENGTH:
            raise ClusterError(f"{self.base} is too long: at most {BASE_LENGTH} letters")
        for name in ("state", "db", "log", "run", *(f"spool/{n}" for n in node_names(layout))):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        (self.base / "layout.json").write_text(json.dumps(asdict(layout)))
        for number in range(layout.gpus):
            _stand_in(self.base / f"gpu{number}")
        names = ["slurmctld", "slurmdbd", "mariadbd", *node_names(layout)]
        ports = _free_ports(names)
        self._write("munge.key", os.urandom(1024))
        self._write("slurm.conf", _slurm_conf(self.base, layout, ports).encode(), mode=0o644)
        self._write("gres.conf", _gres_conf(self.base, layout).encode(), mode=0o644)
        self._write("slurmdbd.conf", _slurmdbd_conf(self.base, ports).encode())
        self._start_munge()
        if layout.accounting:
            self._start_accounting(ports)
        self.start_controller()
        for node in node_names(layout):
            self._spawn(node, "slurmd", "-D", "-N", node, "-f", str(self.conf))
        self.wait("every node to be idle", lambda: set(self.node_states().values()) == {"idle"})

    def stop(self) -> None:
        """End every daemon, and what is left of the jobs, at once: nothing of it is kept."""
        self._end([file.stem for file in (self.base / "run").glob("*.json")], kill=True)
        self._end_jobs()

    # ---- the controller

    def start_controller(self, *options: str) -> None:
        """Start slurmctld; with `-c` it has forgotten all jobs, and counts from 1 again."""
        self._spawn("slurmctld", "slurmctld", "-D", "-f", str(self.conf), *options)
        self.wait("slurmctld", lambda: "is UP" in self.try_command("scontrol", "ping"))

    def stop_controller(self, *, kill: bool = False) -> None:
        """End slurmctld, with SIGKILL if `kill`."""
        self._end(["slurmctld"], kill=kill)

    def forget(self) -> None:
        """Have the controller lose all jobs, and count them from 1 again."""
        self.stop_controller(kill=True)
        shutil.rmtree(self.base / "state")
        (self.base / "state").mkdir()
        self.start_controller("-c")

    @contextmanager
    def closed(self, partition: str) -> Iterator[None]:
        """Jobs of a partition stay in the queue inside the block."""
        self.command("scontrol", "update", f"partitionname={partition}", "state=down")
        try:
            yield
        finally:
            self.command("scontrol", "update", f"partitionname={partition}", "state=up")

    # ---- nodes

    def start_node(self, node: str) -> None:
        """Start a node's slurmd, and return when the node takes jobs again."""
        self._spawn(node, "slurmd", "-D", "-N", node, "-f", str(self.conf))
        self.wait(
            f"{node} to be back", lambda: self.node_states()[node] in {"idle", "mix", "alloc"}
        )

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd; the processes of its jobs live on."""
        self._end([node], kill=True)

    def miss_nodes_after(self, seconds: int = NODE_SECONDS) -> None:
        """Have the controller take a node for down that is silent for so long."""
        text = re.sub(r"(?m)^SlurmdTimeout=.*$", f"SlurmdTimeout={seconds}", self.conf.read_text())
        self._write("slurm.conf", text.encode(), mode=0o644)
        self.command("scontrol", "reconfigure")

    def drain(self, node: str) -> None:
        """Let a node's jobs end and give it no others."""
        self.command("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")

    def resume(self, node: str) -> None:
        """Give a node jobs again."""
        self.command("scontrol", "update", f"nodename={node}", "state=resume")

    def node_states(self) -> dict[str, str]:
        """Node -> `idle`, `mix`, `alloc`, `down`, `drain`, ..."""
        lines = self.try_command("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").split("\n")
        states = dict(line.split() for line in lines if line)
        short = {"mixed": "mix", "allocated": "alloc"}
        return {node: short.get(s := state.rstrip("*"), s) for node, state in states.items()}

    # ---- commands

    def command(self, *words: str) -> str:
        """What a command on the login node prints; ClusterError if it fails."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise ClusterError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def try_command(self, *words: str) -> str:
        """The same; nothing if it fails."""
        with contextlib.suppress(ClusterError, subprocess.TimeoutExpired):
            return self.command(*words)
        return ""

    def wait(self, what: str, condition: Callable[[], object], seconds: float = 0.0) -> None:
        """Return when `condition` holds; ClusterError after `seconds` (START_SECONDS if 0)."""
        deadline = time.monotonic() + (seconds or START_SECONDS)
        while not condition():
            if time.monotonic() > deadline:
                raise ClusterError(f"waited in vain for {what}; {self._last_words()}")
            time.sleep(0.05)

    # ---- inside

    def _start_munge(self) -> None:
        sock = self.base / "munge.sock"
        self._spawn(
            "munged",
            "munged",
            "--foreground",
            "--force",  # not the system's user: never mind the owners of folders above
            f"--key-file={self.base}/munge.key",
            f"--socket={sock}",
            f"--pid-file={self.base}/munged.pid",
            f"--log-file={self.base}/log/munged.log",
            f"--seed-file={self.base}/munge.seed",
        )
        self.wait("munged", lambda: self.try_command("munge", "-S", str(sock), "-n"))

    def _start_accounting(self, ports: Mapping[str, int]) -> None:
        user, sock = getpass.getuser(), str(self.base / "mariadb.sock")
        if not (self.base / "db" / "mysql").exists():
            self.command(
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={self.base}/db",
                f"--user={user}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            )
        self._spawn(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            f"--datadir={self.base}/db",
            f"--user={user}",
            f"--socket={sock}",
            "--bind-address=127.0.0.1",
            f"--port={ports['mariadbd']}",
            f"--pid-file={self.base}/mariadb.pid",
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-log-bin",
        )
        client = ("mariadb", "--no-defaults", "-S", sock, "-uroot", "-e")
        self.wait("mariadbd", lambda: self.try_command(*client, "select 1"))
        grants = [f"create database if not exists {DATABASE}"]
        for host in ("127.0.0.1", "localhost"):
            grants += [
                f"create user if not exists 'slurm'@'{host}' identified by 'slurm'",
                f"grant all on {DATABASE}.* to 'slurm'@'{host}'",
            ]
        self.command(*client, "; ".join(grants))
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self.wait("slurmdbd", lambda: self._dbd_answers(ports["slurmdbd"]))
        self.try_command("sacctmgr", "-i", "add", "cluster", "harness")

    def _dbd_answers(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _write(self, name: str, content: bytes, *, mode: int = 0o600) -> None:
        file = self.base / name
        file.unlink(missing_ok=True)
        file.touch(mode=mode)
        file.write_bytes(content)

    def _spawn(self, name: str, *words: str) -> None:
        with (self.base / "log" / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,  # or a shell that waits for the pipe would hang
                stdout=log,
                stderr=log,
                env={**self.environment, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
                cwd=self.base,
                start_new_session=True,
            )
        started = psutil.Process(process.pid).create_time()
        record = {"pid": process.pid, "started": started}
        (self.base / "run" / f"{name}.json").write_text(json.dumps(record))

    def _process(self, name: str) -> psutil.Process | None:
        """The daemon of that name, unless it is gone and its number somebody else's."""
        file = self.base / "run" / f"{name}.json"
        try:
            record = json.loads(file.read_text())
            process = psutil.Process(record["pid"])
            return process if abs(process.create_time() - record["started"]) < 1.0 else None
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None

    def _end(self, names: Sequence[str], *, kill: bool = False) -> None:
        processes = [process for name in names if (process := self._process(name)) is not None]
        _end_processes(processes, signal.SIGKILL if kill else signal.SIGTERM)
        for name in names:
            (self.base / "run" / f"{name}.json").unlink(missing_ok=True)

    def _end_jobs(self) -> None:
        """Step daemons and jobs outlive a slurmd: their environment says whose they are."""
        mine = f"SLURM_CONF={self.conf}".encode()
        left = []
        for process in psutil.process_iter():
            if process.pid == os.getpid():
                continue
            with contextlib.suppress(OSError):
                environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                in_job = any(entry.startswith(b"SLURM_JOB_ID=") for entry in environment)
                if mine in environment and (in_job or process.name() == "slurmstepd"):
                    left.append(process)
        _end_processes(left, signal.SIGKILL)

    def _last_words(self) -> str:
        lines = []
        for log in sorted((self.base / "log").glob("*.out")):
            text = log.read_text(errors="backslashreplace").strip()
            lines.append(f"{log.name}: {text[-300:]}")
        return "\n".join(lines)


def _end_processes(processes: Sequence[psutil.Process], number: int) -> None:
    """Send a signal, and SIGKILL to those that take their time."""
    for sent in (number, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(sent)
        deadline = time.monotonic() + STOP_SECONDS
        while any(map(_runs, processes)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return


def _runs(process: psutil.Process) -> bool:
    """Whether it runs; one that only waits to be reaped, maybe by another process, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --------------------------------------------------------------------------- for as long as wanted


@contextmanager
def running(layout: Layout) -> Iterator[Cluster]:
    """A cluster that is up inside the block, and gone when this process is, however it ended.

    A keeper of its own session starts it and, when the pipe from here is closed, ends it.
    """
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.slurm.cluster", "keep", "--layout", _text(layout)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        base = keeper.stdout.readline().decode().strip()
        if not base:
            raise ClusterError("the cluster did not start; its keeper has told why")
        yield Cluster(Path(base))
    finally:
        keeper.stdin.close()
        keeper.wait()
        keeper.stdout.close()


def _keep(layout: Layout) -> None:
    base = Path(tempfile.mkdtemp(prefix="test-slurm-"))
    base.chmod(0o755)
    cluster = Cluster(base)
    try:
        cluster.start(layout)
        print(base, flush=True)
        sys.stdin.read()
    finally:
        cluster.stop()
        shutil.rmtree(base, ignore_errors=True)


def _text(layout: Layout) -> str:
    return json.dumps(asdict(layout))


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.cluster", description=__doc__)
    parser.add_argument("action", choices=("up", "down", "keep"))
    parser.add_argument("base", nargs="?", type=lambda text: Path(text).resolve())
    parser.add_argument("--layout", type=json.loads, default={}, help='such as {"nodes": 3}')
    args = parser.parse_args(argv)
    layout = Layout(**args.layout)
    if args.action == "keep":
        _keep(layout)
        return 0
    if args.base is None:
        parser.error("BASE is wanted")
    cluster = Cluster(args.base)
    if args.action == "down":
        cluster.stop()
        return 0
    lacking = missing()
    if lacking is not None:
        print(f"error: {lacking}", file=sys.stderr)
        return 2
    try:
        cluster.start(layout)
    except BaseException:
        cluster.stop()
        raise
    print(f"export SLURM_CONF={cluster.conf}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
