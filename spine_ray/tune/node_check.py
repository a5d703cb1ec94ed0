"""Before anything trains: whether every node of a cluster has what its workers will need. One line a node."""

import hashlib
import importlib.metadata
import os
import platform
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from pyarrow.fs import LocalFileSystem
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from spine_ray.data.places import Place
from spine_ray.study.remote import Remote, is_remote
from spine_ray.tune.node import sizes_there
from spine_ray.workers.spec import WorkerSpec

PACKAGES = ("ray", "torch", "torchvision", "timm", "numpy", "scipy", "pyarrow", "pillow", "safetensors", "fsspec")
"""What decides how a trial comes out, or how nodes speak with one another."""
ANSWER_S = 120.0
"""Longest wait for a node, s: its first process may have to unpack the code."""
SKEW_S = 60.0
"""Largest difference of clocks, s: object stores refuse requests whose time is some minutes off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeReport:
    """What was found on one node."""

    name: str
    """Its address and, where it has one, its label `tier`."""
    seen: tuple[str, ...]
    """What is as it should be, in words."""
    problems: tuple[str, ...]
    """What is not; empty where trials may run."""

    @property
    def line(self) -> str:
        """All of it in one line, problems first."""
        if self.problems:
            return f"node {self.name}: NOT ready: {'; '.join(self.problems)}"
        return f"node {self.name}: ready: {', '.join(self.seen)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeNeeds:
    """What the driver has, for a node to compare with: small and plain, because it travels."""

    token: bytes
    """What every node writes into the study."""
    study: str
    data: str | None
    driver: str
    """Ray's name of the driver's node, from which weights are fetched."""
    weights: tuple[tuple[str, Path, int], ...]
    """(backbone, file there, bytes)."""
    versions: Mapping[str, str]
    threads: int
    """Of a worker."""


@dataclass(kw_only=True, slots=True)
class Findings:
    """What a node says of itself."""

    seen: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    has_written: bool = False
    """Whether the study took its token."""


def check_nodes(spec: WorkerSpec, data: str | None) -> tuple[NodeReport, ...]:
    """Look at every node of the cluster that this process has joined; takes no CPU and no GPU from it.

    Checked are the versions of packages and of this code, that the study takes what a node writes and the driver sees
    it there, that data and weights can be read, processors and threads, GPUs, and the clock. A node that runs no
    trials, as a head without CPUs, needs neither weights nor threads.

    Args:
        spec: What the workers must know.
        data: What the user called the data; None for the built-in sample.

    Returns:
        One report a node that is alive, by name.
    """
    needs = NodeNeeds(
        token=secrets.token_bytes(16),
        study=spec.uri or str(spec.study),
        driver=ray.get_runtime_context().get_node_id(),
        data=data,
        weights=tuple((backbone, file, file.stat().st_size) for backbone, file, _ in spec.weights),
        versions=versions(),
        threads=spec.threads,
    )
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    probes = [_probe(node) for node in nodes]
    answers = [
        probe.look.remote(needs, node["NodeID"], node["Resources"]) for node, probe in zip(nodes, probes, strict=True)
    ]
    reports = [_report(node, probe, answer, needs) for node, probe, answer in zip(nodes, probes, answers, strict=True)]
    for probe in probes:
        ray.kill(probe)
    return tuple(sorted(reports, key=lambda report: report.name))


def versions() -> dict[str, str]:
    """Return the versions of what must be the same everywhere, this code's own contents among them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return {**found, "spine_ray": _code()}


def _code() -> str:
    """Return a fingerprint of this package's files: a version number alone does not change while one works on it."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:8]


def _probe(node: dict[str, Any]) -> Any:
    """Start a process on a node that looks around there."""
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(NodeProbe).options(num_cpus=0, scheduling_strategy=here).remote()


def _report(node: dict[str, Any], probe: Any, answer: Any, needs: NodeNeeds) -> NodeReport:
    """Wait for a node's answer and add what only the driver can judge."""
    tier = node["Labels"].get("tier")
    name = f"{node['NodeManagerAddress']} {node['NodeID'][:6]}" + (f" ({tier})" if tier else "")
    try:
        found: Findings = ray.get(answer, timeout=ANSWER_S)
        _compare_clock(probe, found)
        _see_what_it_wrote(node["NodeID"], needs, found)
    except GetTimeoutError:
        found = Findings(problems=[f"did not answer within {ANSWER_S:.0f} s"])
    except RayError as error:
        found = Findings(problems=[f"cannot run anything: {_one_line(error)}"])
    return NodeReport(name=name, seen=tuple(found.seen), problems=tuple(found.problems))


def _compare_clock(probe: Any, found: Findings) -> None:
    began = time.time()
    there: float = ray.get(probe.time.remote(), timeout=ANSWER_S)
    skew = there - (began + time.time()) / 2
    if abs(skew) > SKEW_S:
        found.problems.append(f"its clock is {skew:+.0f} s off")
    else:
        found.seen.append(f"clock {skew:+.2f} s")


def _see_what_it_wrote(node_id: str, needs: NodeNeeds, found: Findings) -> None:
    """Read a node's token where the driver sees the study, and take it away."""
    if not found.has_written:
        return
    study, name = _study_of(needs), _token_name(node_id)
    try:
        has_arrived = study.get(name) == needs.token
    except FileNotFoundError:
        has_arrived = False
    if not has_arrived:
        found.problems.append(
            f"what it writes to the study does not arrive here: {needs.study} is a folder of this machine alone; name "
            "s3://, gs:// or a folder that all machines mount"
        )
        return
    study.delete(name)
    found.seen.append("study shared")


def _study_of(needs: NodeNeeds) -> Remote:
    if is_remote(needs.study):
        return Remote.at(needs.study)
    return Remote(needs.study, LocalFileSystem(), needs.study)


def _token_name(node_id: str) -> str:
    return f".{node_id}.token"


class NodeProbe:
    """Looks around on the node where it runs."""

    def time(self) -> float:
        """Return this node's time, seconds since 1970."""
        return time.time()

    def look(self, needs: NodeNeeds, node_id: str, resources: Mapping[str, float]) -> Findings:
        """Compare what is here with what is needed; whatever goes wrong is a problem of this node and not an error.

        Args:
            needs: What the driver has.
            node_id: Ray's name of this node.
            resources: What Ray offers of it.
        """
        found = Findings()
        checks = [_compare_versions, _read_data]
        if resources.get("CPU") or resources.get("GPU"):
            checks += [_find_weights, _count_threads, _count_gpus]
        else:
            found.seen.append("no trials")
        for check in [*checks, _write_token]:
            try:
                check(needs, node_id, resources, found)
            except Exception as error:  # file systems raise what they like, and each is told
                found.problems.append(f"{check.__name__.strip('_').replace('_', ' ')}: {_one_line(error)}")
        return found


def _compare_versions(needs: NodeNeeds, node_id: str, resources: Mapping[str, float], found: Findings) -> None:
    here = versions()
    other = [f"{name} {here[name]} where the driver has {version}" for name, version in needs.versions.items()
             if here[name] != version]  # fmt: skip
    found.problems += other
    if not other:
        found.seen.append(f"{len(here)} versions as here")


def _read_data(needs: NodeNeeds, node_id: str, resources: Mapping[str, float], found: Findings) -> None:
    if needs.data is None:
        return
    fs, path = Place.of(needs.data).open()
    if fs.isdir(path):
        is_there = bool(fs.ls(path, detail=False))
    else:
        with fs.open(path, "rb") as file:
            is_there = bool(file.read(1))
    if is_there:
        found.seen.append("data read")
    else:
        found.problems.append(f"there is nothing at {needs.data}")


def _write_token(needs: NodeNeeds, node_id: str, resources: Mapping[str, float], found: Findings) -> None:
    _study_of(needs).put(_token_name(node_id), needs.token)
    found.has_written = True


def _find_weights(needs: NodeNeeds, node_id: str, resources: Mapping[str, float], found: Findings) -> None:
    if not needs.weights:
        return
    sizes = sizes_there([file for _, file, _ in needs.weights], needs.driver)
    found.problems += [
        f"the weights of {backbone} are not the driver's: {there} bytes arrive, not {size}"
        for (backbone, _, size), there in zip(needs.weights, sizes, strict=True)
        if there != size
    ]
    if sizes == [size for _, _, size in needs.weights]:
        found.seen.append(f"{len(sizes)} files of weights within reach")


def _count_threads(needs: NodeNeeds, node_id: str, resources: Mapping[str, float], found: Findings) -> None:
    cpus, processors = int(resources.get("CPU", 0)), len(os.sched_getaffinity(0))
    if processors < cpus:
        found.problems.append(f"offers {cpus} CPUs, but its processes may use {processors}")
    if cpus < needs.threads:
        found.problems.append(f"offers {cpus} CPUs, and a worker needs {needs.threads}")
    limit = _started_with("OMP_NUM_THREADS")
    if limit is not None and int(limit) < needs.threads:
        found.problems.append(f"was started with OMP_NUM_THREADS={limit}, and a worker has {needs.threads} threads")
    found.seen.append(f"{cpus} CPUs")


def _started_with(name: str) -> str | None:
    """Return a variable of the environment in which Ray was started here; its processes may each have another.

    None too where that environment is not to be read: the first process of a container may be somebody else's.
    """
    try:
        entries = Path(f"/proc/{os.getppid()}/environ").read_bytes().decode(errors="replace").split("\0")
    except PermissionError:
        return None
    return next((entry.partition("=")[2] for entry in entries if entry.startswith(f"{name}=")), None)


def _count_gpus(needs: NodeNeeds, node_id: str, resources: Mapping[str, float], found: Findings) -> None:
    offered = int(resources.get("GPU", 0))
    if not offered:
        return
    import torch  # seconds that only a node with GPUs pays

    visible = torch.cuda.device_count()
    if visible != offered:
        found.problems.append(f"offers {offered} GPUs, and torch sees {visible}")
    else:
        found.seen.append(f"{offered} {torch.cuda.get_device_name(0)}")


def _one_line(error: BaseException) -> str:
    error = getattr(error, "cause", None) or error  # ray wraps what was raised elsewhere
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
