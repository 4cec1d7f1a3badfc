"""Ray, where work is shared among processes and machines: how it is reached, and what share of it each worker gets.

Ray is imported when it is asked for, not before. A cluster of several machines needs this library, the models and the
folders that are written at the same paths on every machine, such as on a shared disk.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedstory.errors import RequestError

ENGINES = ("local", "ray")
ADDRESS_VARIABLE = "RAY_ADDRESS"
_PASSED_ON = ("HF_HUB_OFFLINE", "OMP_NUM_THREADS", "SEEDSTORY_PRECISION", "TOKENIZERS_PARALLELISM")
_SMALL_STORE = 100 * 2**20  # bytes: what passes between workers is pages' numbers and words
_PATIENCE = 5.0  # seconds for a cluster to answer
_MOST_WORKERS = 10_000


@dataclass(frozen=True)
class Share:
    """What the workers of a run are, and have each.

    Args:
        workers: How many there are.
        num_cpus: Of each.
        num_gpus: Of each; below 1, some share a GPU.
    """

    workers: int
    num_cpus: float
    num_gpus: float = 0.0

    @property
    def options(self) -> dict[str, float]:
        """As `ray.remote` takes them."""
        return {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}


def check_engine(engine: str, workers: int | None, address: str | None) -> None:
    """Checks where stories shall be made.

    Raises:
        RequestError: There is no such engine, or the others are for another one.
    """
    if engine not in ENGINES:
        raise RequestError(f"the engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if engine == "local" and (workers is not None or address is not None):
        raise RequestError("workers and an address are for the engine ray: this process makes one batch at a time")


def connect(address: str | None = None, *, small: bool = False, processes: int | None = None) -> Any:
    """Reaches a cluster, or starts one on this machine that nobody outside reaches and that ends with this process.

    Args:
        address: `HOST:PORT` of a cluster, or "auto" for the one that runs on this machine; by default what the
            variable RAY_ADDRESS names, or else a new one.
        small: Whether what passes between workers is small, so that a new cluster needs little shared memory.
        processes: CPUs of a new cluster; by default those of this machine.

    Returns:
        The module `ray`.

    Raises:
        RequestError: Ray is not installed, or the cluster cannot be reached.
    """
    address = address or os.environ.get(ADDRESS_VARIABLE) or None
    ray = import_ray(address)
    if ray.is_initialized():
        return ray
    options: dict[str, Any] = {"address": address or "local"}
    if address is None:
        options |= {"include_dashboard": False, "num_cpus": processes}
        if small:
            options["object_store_memory"] = _SMALL_STORE
    else:
        _check_address(address)
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": environment}, **options)
    except Exception as error:  # noqa: BLE001 - Ray raises all kinds, bare ones too
        where = f"the Ray cluster at {address} cannot be reached" if address else "Ray cannot be started here"
        raise RequestError(f"{where}: {str(error).strip().splitlines()[0]}") from None
    return ray


def import_ray(address: str | None = None) -> Any:
    """The module `ray`, set so that it reports nothing and, without an address, listens on this machine alone.

    Raises:
        RequestError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not (address or os.environ.get(ADDRESS_VARIABLE)):  # its name says it of other systems, but it holds for all
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise RequestError("the engine 'ray' needs Ray: pip install 'seedstory[ray]', or choose another") from None
    return ray


def is_connected() -> bool:
    """Whether this process has reached a cluster, or started one."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def divide(ray: Any, workers: int | None) -> Share:
    """The share of a cluster that each worker gets: GPUs if there are any, else CPUs, all alike and all of it.

    Args:
        ray: As `connect` returned it.
        workers: How many are asked for; None is one for each GPU, or for each CPU where there is no GPU.

    Raises:
        RequestError: The number is out of range, or the cluster has neither GPUs nor CPUs.
    """
    if workers is not None and not 1 <= workers <= _MOST_WORKERS:
        raise RequestError(f"workers must be from 1 to {_MOST_WORKERS:,}, not {workers}")
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return divide_nodes([(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in alive], workers)


def divide_nodes(nodes: list[tuple[int, int]], workers: int | None) -> Share:
    """As `divide`, of machines with so many CPUs and GPUs.

    Raises:
        RequestError: There are neither.
    """
    drawn = [(cpus, gpus) for cpus, gpus in nodes if gpus]
    devices = [gpus for _, gpus in drawn] or [cpus for cpus, _ in nodes if cpus]
    if not devices:
        raise RequestError("the Ray cluster has no CPU and no GPU for a worker")
    count = workers or sum(devices)
    if drawn:
        each = 1.0 if count <= sum(devices) else 1 / -(-count // sum(devices))
        return Share(count, float(min(cpus // gpus for cpus, gpus in drawn)) * each // 1, each)
    if count > sum(devices):
        return Share(count, 1 / -(-count // sum(devices)))
    whole = max(size for size in range(1, max(devices) + 1) if sum(cpus // size for cpus in devices) >= count)
    return Share(count, float(whole))


def _check_address(address: str) -> None:
    """Checks that somebody listens there, since Ray itself would wait for long."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or "/" in host:
        raise RequestError(f"{address!r} is no address of a Ray cluster: give HOST:PORT of its head node, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"the Ray cluster at {address} cannot be reached: {error}; start one with ray start --head"
        ) from None
