"""How much a cluster takes, as it is now: whatever a site may say it in, by the names of fields."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.errors import user_name
from harness.launch.profiles import Profile, seconds_of
from harness.launch.slurm.scheduler import Listing, fields_of, or_nothing, rows_of

_SECONDS = 10.0
"""How long accounting may take to answer."""
_ACCOUNTS = ("Account", "ParentName", "Def QOS", "MaxSubmit", "GrpSubmit")
_QOS = ("Name", "MaxSubmitPU", "MaxSubmitPA", "GrpSubmit")


@dataclass(frozen=True)
class Limits:
    """How much the cluster takes.

    Attributes:
        array: tasks in one array.
        jobs: jobs in the queue of this user, a task of an array counted as one; None: no limit
            that could be learnt.
        report_seconds: how long a job of the report's partition may take; None: as long as it
            wants.
    """

    array: int = 1001
    jobs: int | None = None
    report_seconds: int | None = None

    def room(self, listing: Listing, *, report: bool) -> int | None:
        """Jobs that may be submitted beside those in the queue and a report's; None: any."""
        if self.jobs is None:
            return None
        return self.jobs - alive(listing) - int(report)


def alive(listing: Listing) -> int:
    """Jobs that are not over, a task of an array counted as one."""
    return sum(not task.over for tasks in listing.jobs.values() for task in tasks.values())


def limits(profile: Profile) -> Limits:
    """The limits on jobs of a profile; what the cluster does not tell is SLURM's own default.

    Jobs are limited by the cluster, the user's association and the accounts above it, the QOS of
    the job (the profile's, or the user's default) and that of its partition, and the profile.
    """
    config = dict(
        re.findall(r"^(\w+)\s*=\s*(\S+)", or_nothing("scontrol", "show", "config"), re.MULTILINE)
    )
    partitions = list(_partitions(profile.partition))
    own = _associations(profile.account)
    chosen = [profile.qos] if profile.qos else [row.get("Def QOS") for row in own]
    qos = {*filter(None, chosen), *(part.get("QoS", "N/A") for part in partitions)} - {"N/A"}
    told = [config.get("MaxJobCount"), *_submit_limits(own), *_submit_limits(_accounts_above(own))]
    told += _submit_limits(_qos_named(qos))
    bounds = [int(text) for text in told if text and text.isdigit() and int(text)]
    bounds += [profile.max_jobs] if profile.max_jobs is not None else []
    array = config.get("MaxArraySize", "")
    report = profile.report_partition
    return Limits(
        array=max(1, int(array)) if array.isdigit() else Limits.array,
        jobs=min(bounds) if bounds else None,
        report_seconds=_longest(partitions if report is None else _partitions(report)),
    )


def _submit_limits(rows: Iterable[Mapping[str, str]]) -> list[str]:
    return [text for row in rows for name, text in row.items() if "Submit" in name]


def _accounting(what: str, *words: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    text = or_nothing("sacctmgr", "--parsable2", "show", what, *words, seconds=_SECONDS)
    return rows_of(text, columns)


def _associations(account: str | None) -> list[dict[str, str]]:
    """The user's, with the account that a job is charged to if that is known."""
    names = "format=Account,ParentName,DefaultQOS,MaxSubmitJobs,GrpSubmitJobs"
    rows = _accounting("associations", f"user={user_name(os.getuid())}", names, columns=_ACCOUNTS)
    of_account = [row for row in rows if row.get("Account") == account]
    return of_account or rows


def _accounts_above(own: Iterable[Mapping[str, str]]) -> Iterator[dict[str, str]]:
    """The accounts of associations, and those above them."""
    names = {row.get("Account", "") for row in own}
    if not names:
        return
    fields = "format=Account,ParentName,MaxSubmitJobs,GrpSubmitJobs"
    found = _accounting("associations", "user=", fields, columns=_ACCOUNTS)
    rows = {row.get("Account", ""): row for row in found}
    while names:
        above = [rows.pop(name) for name in names if name in rows]
        yield from ({"GrpSubmit": row.get("GrpSubmit", "")} for row in above)
        names = {row.get("ParentName", "") for row in above}


def _qos_named(names: set[str]) -> list[dict[str, str]]:
    fields = "format=Name,MaxSubmitJobsPerUser,MaxSubmitJobsPerAccount,GrpSubmitJobs"
    rows = _accounting("qos", fields, columns=_QOS) if names else []
    return [row for row in rows if row.get("Name") in names]


def _partitions(names: str | None) -> Iterator[dict[str, str]]:
    """What the scheduler says of partitions, with commas between their names; None: the default."""
    wanted = None if names is None else names.split(",")
    for line in or_nothing("scontrol", "--all", "--oneliner", "show", "partition").splitlines():
        fields = fields_of(line)
        is_default = fields.get("Default") == "YES"
        if is_default if wanted is None else fields.get("PartitionName") in wanted:
            yield fields


def _longest(partitions: Iterable[Mapping[str, str]]) -> int | None:
    """The time limit in seconds that every one of them takes; None if all take any."""
    times = [part.get("MaxTime", "UNLIMITED") for part in partitions]
    found = [seconds_of(time) for time in times if time[:1].isdigit()]
    return min((each for each in found if isinstance(each, int)), default=None)
