"""How shards of visual features are computed: in this process, or by workers of Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from seedstory.image import image_to_tensor, to_square
from seedstory.io import atomic_path
from seedstory.modeling.vision_tower import AnyTower, load_vision_tower
from seedstory.precision import fast_precision
from seedstory.ray_cluster import connect
from training.splits import Stories, Story, open_split


def shard_name(number: int) -> str:
    return f"features-{number:05d}.safetensors"


@dataclass(frozen=True)
class FeatureWorker:
    """Computes shards: one in this process, or one in every process of Ray."""

    data: str
    split: str
    tower_folder: str
    folder: str
    device: str
    batch_size: int

    @cached_property
    def stories(self) -> Stories:
        return open_split(self.data, self.split)

    @cached_property
    def tower(self) -> AnyTower:
        tower = load_vision_tower(self.tower_folder)
        return tower.to(self.device, memory_format=torch.channels_last)

    @torch.no_grad()
    def write_shard(self, number: int, start: int, stop: int, advance: Callable[[int], None]) -> None:
        """Compute pages `start` up to `stop` and write them in one step, unless another process has meanwhile."""
        path = Path(self.folder) / shard_name(number)
        if path.exists():
            return advance(stop - start)
        parts = []
        for pixels in self.pixels(start, stop):
            kind = torch.device(self.device).type
            with torch.autocast(kind, torch.bfloat16, enabled=fast_precision(kind) == "bf16"):
                parts.append(self.tower(pixels.to(self.device)).to(torch.bfloat16).cpu())
            advance(len(pixels))
        with atomic_path(path) as temporary:
            save_file({"features": torch.cat(parts)}, temporary, {"pages": f"{start}:{stop}"})

    def pixels(self, start: int, stop: int) -> Iterator[Tensor]:
        """Batches [B, 3, S, S] of the pages, squared as in generation; the next ones are decoded meanwhile."""
        size, fit, pages = self.tower.config.image_size, self.tower.image_fit, self.pages(start, stop)

        def load(story: Story, page: int) -> Tensor:
            return image_to_tensor(to_square(story.image(page), size, fit))

        with ThreadPoolExecutor() as pool:
            ahead: deque[list[Future[Tensor]]] = deque()
            while batch := [pool.submit(load, *page) for page in islice(pages, self.batch_size)]:
                ahead.append(batch)
                if len(ahead) == 3:
                    yield torch.stack([image.result() for image in ahead.popleft()])
            for batch in ahead:
                yield torch.stack([image.result() for image in batch])

    def pages(self, start: int, stop: int) -> Iterator[tuple[Story, int]]:
        """The pages `start` up to `stop` of the data set, as (story, page of the story)."""
        ends = np.cumsum(self.stories.pages)
        while start < stop:
            number = int(np.searchsorted(ends, start, side="right"))
            story, end = self.stories[number], int(ends[number])
            first = end - int(self.stories.pages[number])
            for page in range(start, min(end, stop)):
                yield story, page - first
            start = end


def compute_here(worker: FeatureWorker, jobs: list[tuple[int, int, int]], advance: Callable[[int], None]) -> None:
    for job in jobs:
        worker.write_shard(*job, advance)


def compute_with_ray(worker: FeatureWorker, jobs: list[tuple[int, int, int]], advance: Callable[[int], None]) -> None:
    """One worker a CPU, or a GPU, of the cluster that RAY_ADDRESS names, or of this machine."""
    ray = connect()
    from ray.util import ActorPool

    kind = "GPU" if torch.device(worker.device).type == "cuda" else "CPU"
    count = min(len(jobs), int(ray.cluster_resources().get(kind, 0)))
    if not count:
        raise ValueError(f"the Ray cluster has no {kind}: choose another device")
    remote = (ray.remote(num_gpus=1) if kind == "GPU" else ray.remote(num_cpus=1))(RayWorker)
    pool = ActorPool([remote.remote(worker) for _ in range(count)])
    for pages, fault in pool.map_unordered(lambda one, job: one.write_shard.remote(job), jobs):
        if fault:
            raise ValueError(fault)
        advance(pages)


class RayWorker:
    """A `FeatureWorker` in a process of its own; a fault comes home as text."""

    def __init__(self, worker: FeatureWorker) -> None:
        self.worker = worker

    def write_shard(self, job: tuple[int, int, int]) -> tuple[int, str]:
        try:
            self.worker.write_shard(*job, lambda pages: None)
        except Exception as error:  # noqa: BLE001 - raised again at home
            return 0, str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return job[2] - job[1], ""


ENGINES = {"local": compute_here, "ray": compute_with_ray}
