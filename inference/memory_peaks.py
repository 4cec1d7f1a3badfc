"""What models take in memory, beside what they are said to take: a story in each mode, each in a fresh process.

python -m inference.memory_peaks --model mini --modes resident,phases,int8

Main memory is what the process has of its own (RssAnon): mapped files are not counted, since the system takes them back
when it needs to. On a GPU it is what torch has handed out at most.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from seedstory.error_reporting import one_line
from seedstory.errors import SeedStoryError

STATUS = Path("/proc/self/status")
GB = 1e9
TEXT = "Mia the fox found a golden key."
app = typer.Typer(add_completion=False)


class HostPeak:
    """The most memory that this process has of its own inside the block, in bytes; Linux only."""

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.bytes = max(self.bytes, own_memory())

    def __enter__(self) -> HostPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def own_memory() -> int:
    """Bytes that this process has of its own now."""
    found = re.search(r"RssAnon:\s+(\d+)", STATUS.read_text("ascii"))
    return int(found[1]) * 1024 if found else 0


def measure(model: str, mode: str, pages: int, tokens: int, steps: int | None, text: str = TEXT) -> dict[str, Any]:
    """Writes and draws a story in one mode, in this process.

    Args:
        model: "mini", a folder or a Hub id.
        mode: The name of a memory mode.
        pages: Of the story.
        tokens: Longest caption.
        steps: Diffusion steps a page; by default those of the pipeline.
        text: Opening.
    """
    import torch

    from seedstory.pipeline import StoryPipeline

    options: dict[str, Any] = {} if steps is None else {"num_inference_steps": steps}
    with HostPeak() as host:
        pipeline = StoryPipeline.from_pretrained(model, memory=mode)
        story = pipeline(text, pages=pages, seed=3, max_caption_tokens=tokens, **options)
    plan = pipeline.memory_plan
    assert plan is not None and len(story.pages) == pages
    return {
        "mode": mode,
        "host_gb": round(host.bytes / GB, 3),
        "host_estimated_gb": round(plan.needs.host / GB, 3),
        "gpu_gb": round(torch.cuda.max_memory_allocated() / GB, 3) if torch.cuda.is_available() else 0.0,
        "gpu_estimated_gb": round(plan.needs.networks / GB, 3) if plan.needs.gpu else 0.0,
    }


@app.command()
def main(
    model: Annotated[str, typer.Option(help="'mini', a model folder or a Hub id.")] = "mini",
    modes: Annotated[str, typer.Option(help="Names of memory modes, with commas between them.")] = "resident,phases",
    pages: Annotated[int, typer.Option(help="Pages of the story.")] = 10,
    tokens: Annotated[int, typer.Option(help="Longest caption.")] = 96,
    steps: Annotated[int | None, typer.Option(help="Diffusion steps a page.")] = None,
    text: Annotated[str, typer.Option(help="Opening.")] = TEXT,
    alone: Annotated[bool, typer.Option("--alone", hidden=True)] = False,
) -> None:
    """Measure peaks, a line of JSON for each mode as soon as it is measured."""
    if alone:
        from seedstory.progress_display import quiet_libraries

        quiet_libraries()
        try:
            typer.echo(json.dumps(measure(model, modes, pages, tokens, steps, text)))
        except SeedStoryError as error:
            typer.echo(f"{modes}: {one_line(str(error))}", err=True)
            raise typer.Exit(2) from None
        return
    for mode in modes.split(","):
        command = [sys.executable, "-m", "inference.memory_peaks", "--alone", "--model", model, "--modes", mode]
        command += ["--pages", str(pages), "--tokens", str(tokens), "--text", text]
        command += [] if steps is None else ["--steps", str(steps)]
        run = subprocess.run(command, capture_output=True, text=True)
        lines = (run.stdout if run.returncode == 0 else run.stderr).strip().splitlines()
        typer.echo(lines[-1] if lines else f"{mode}: ended with {run.returncode}")


if __name__ == "__main__":
    app()
