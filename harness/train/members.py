"""Who may train a run together, and the network over which they talk."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
import torch.distributed as dist

from harness.errors import ConfigError

_SIOCGIFADDR = 0x8915


def member(device: torch.device) -> dict[str, str | None]:
    """What the others must know of this process."""
    on_gpu, name, uuid = device.type == "cuda", None, None
    if on_gpu:
        gpu = torch.cuda.get_device_properties(device)
        name, uuid = gpu.name, str(gpu.uuid)
    return {
        "host": socket.gethostname(),
        "device": device.type,
        "torch": str(torch.__version__),
        "nccl": "there" if not on_gpu or dist.is_nccl_available() else "missing",
        "GPU": name,
        "uuid": uuid,
    }


def check_members(members: Sequence[Mapping[str, str | None]]) -> None:
    """ConfigError, naming two ranks, unless processes can train a run together.

    That is with one torch, on one kind of device, each on a GPU of its own.
    """
    for rank, member in enumerate(members):
        first, where = members[0], f"rank {rank} on {member['host']}"
        if member["nccl"] == "missing":
            raise ConfigError(
                f"{where}: this torch was built without NCCL, which several GPUs need to talk; "
                "install a CUDA build of torch, or give runtime.processes=1"
            )
        for what in ("torch", "device", "GPU"):
            if member[what] != first[what]:
                raise ConfigError(
                    f"{where} has {what} {member[what]}, and rank 0 on {first['host']} "
                    f"{first[what]}: the processes of a run need the same"
                )
        taken = [other["uuid"] for other in members[:rank]]
        if member["uuid"] is not None and member["uuid"] in taken:
            raise ConfigError(
                f"{where} and rank {taken.index(member['uuid'])} share one GPU: "
                f"runtime.processes = {len(members)} wants a GPU each"
            )


def name_interface(address: str) -> None:
    """Have gloo and NCCL talk over the network on which rank 0 is, unless somebody chose another.

    Of themselves they take the address of the machine's own name, which may be 127.0.1.1.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return
    name = _interface_with(own)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        if not own.startswith("127."):
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


def _interface_with(address: str) -> str | None:
    """The network interface that has an IPv4 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with suppress(OSError):  # it has none
                found = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, request)[20:24]
                if socket.inet_ntoa(found) == address:
                    return name
    return None
