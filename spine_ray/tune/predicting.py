"""Predictions on a Ray cluster by Ray Data: one task goes through the pictures, actors on every node predict them."""

import itertools
import logging
import pickle
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask, read_datasource
from ray.data.block import BlockMetadata

from spine_ray.data.albums import Album, Picture, open_album
from spine_ray.ship.artefact import Artefact, Tensors
from spine_ray.ship.bundle import open_bundle, write_bundle
from spine_ray.ship.run import Go, Predictor
from spine_ray.ship.stream import Predictions
from spine_ray.tune.cluster import joined
from spine_ray.tune.machines import alive_nodes
from spine_ray.workers.layout import Nodes

_PARCEL = 256
"""Pictures that travel at once: several of a predictor's blocks, so that decoding runs beside computing there too."""
_PACKED = "packed"
Files = Mapping[str, bytes]
"""Of a bundle, by their names in it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How many actors a cluster holds, and what each has of its node."""

    count: int
    cpus: int
    gpus: int

    @classmethod
    def of(cls, nodes: Nodes) -> "Layout":
        """Return an actor for every GPU; where there is none, for every node, or part of one as large as the smallest.

        Raises:
            ValueError: If no node offers a core.
        """
        offers = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes if node.get("CPU", 0) >= 1]
        if not offers:
            raise ValueError("the cluster has no machine that predicts: none offers a core")
        if any(gpus for _, gpus in offers):
            offers = [(cpus, gpus) for cpus, gpus in offers if gpus]
            cores = min(max(1, cpus // gpus) for cpus, gpus in offers)
            return cls(sum(min(gpus, cpus // cores) for cpus, gpus in offers), cores, 1)
        cores = min(cpus for cpus, _ in offers)
        return cls(sum(cpus // cores for cpus, _ in offers), cores, 0)


class AlbumSource(Datasource):
    """Pictures as Ray Data reads them: in one task, in parcels, while others are predicted.

    Args:
        album: What the task goes through.
    """

    def __init__(self, album: Album) -> None:
        """Read nothing yet."""
        self._album = album

    def estimate_inmemory_data_size(self) -> int | None:
        """Return that it is not known."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """Return the one task."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        album = self._album
        return [ReadTask(lambda: (_packed(parcel) for parcel in _parcels(album.pictures())), unknown)]


class PredictingActor:
    """Holds the members on one node.

    Args:
        files: The bundle's, in Ray's store.
        is_cheap_first: Whether pictures go through its cascade.
        cores: Of the node, for this actor.
    """

    def __init__(self, files: "ray.ObjectRef[Files]", is_cheap_first: bool, cores: int) -> None:
        """Build the members."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in ray.get(files).items():
                path = Path(folder, name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            self._predictor = Predictor(*open_bundle(Path(folder)), is_cheap_first=is_cheap_first, cores=cores)

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[bytes]]:
        """Predict parcels of pictures."""
        return {_PACKED: [pickle.dumps(self._predict(pickle.loads(each))) for each in rows[_PACKED]]}

    def _predict(self, parcel: list[Picture]) -> list[Predictions]:
        return list(self._predictor.predict(Album("a parcel", len(parcel), lambda: iter(parcel))))


def predicting_on(address: str) -> Go:
    """Return what predicts on the cluster at an address.

    Its machines have to see the pictures where they are said to lie; the artefact travels to them.
    """

    def go(artefact: Artefact, tensors: Tensors, is_cheap_first: bool, images: str) -> Generator[Predictions]:
        with joined(address):
            layout = Layout.of(alive_nodes())
            files = ray.put(bundled(artefact, tensors))
            place = str(Path(images).absolute()) if Path(images).exists() else images
            with closing(_through(AlbumSource(open_album(place)), files, is_cheap_first, layout)) as blocks:
                yield from blocks

    return go


def bundled(artefact: Artefact, tensors: Tensors) -> Files:
    """Return the files of a bundle of an artefact."""
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(artefact, tensors, Path(folder))
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _through(
    source: AlbumSource, files: "ray.ObjectRef[Files]", is_cheap_first: bool, layout: Layout
) -> Generator[Predictions]:
    """Have the pictures predicted and yield what is said of them, in order.

    Raises:
        ValueError: If the task that goes through the pictures, or an actor, failed for good.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # a row, which is a parcel, is a block of its own: it travels when it is there
    predicted = read_datasource(source, override_num_blocks=1, num_cpus=0).map_batches(
        PredictingActor,
        batch_size=1,
        compute=ActorPoolStrategy(size=layout.count),
        fn_constructor_args=(files, is_cheap_first, layout.cpus),
        num_cpus=layout.cpus,
        num_gpus=layout.gpus,
    )
    try:
        for row in predicted.iter_rows():
            yield from pickle.loads(row[_PACKED])
    except ray.exceptions.RayError as error:
        raise ValueError(f"the cluster did not predict: {error}") from error


def _parcels(pictures: Iterator[Picture]) -> Iterator[list[Picture]]:
    while parcel := list(itertools.islice(pictures, _PARCEL)):
        yield parcel


def _packed(parcel: Iterable[Picture]) -> pa.Table:
    packed: bytes = cloudpickle.dumps(parcel)  # type: ignore[no-untyped-call]
    return pa.table({_PACKED: [packed]})
