"""Runs modules of Python one after the other, each in forked processes: what they all import is imported once.

    python -m tests.training.forked_commands commands.json

The file holds a list of `{"module": "training.mllm", "arguments": [...], "processes": 2}`; several processes find the
environment that torchrun gives them. The first one that fails ends it all.
"""

import importlib
import json
import os
import runpy
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

SHARED = ("transformers", "diffusers", "peft", "accelerate", "torch.utils.tensorboard", "training.adapt")
SHARED += ("inference.evaluate", "seedstory.cli", "data_tools.importers.__main__", "deepspeed.runtime.engine")


def run(module: str, arguments: list[str], processes: int) -> int:
    """The worst exit status of the processes of a command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = []
    for rank in range(processes):
        child = os.fork()
        if not child:
            own: dict[str, Any] = group | {"RANK": rank, "LOCAL_RANK": rank} if processes > 1 else {}
            os.environ.update({name: str(value) for name, value in own.items()})
            sys.argv[1:] = arguments
            _run_and_leave(module)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256 for child in children)


def _run_and_leave(module: str) -> None:
    status = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - it is shown, and the process ends
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Runs the commands."""
    for name in SHARED:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    for command in json.loads(Path(sys.argv[1]).read_text("utf-8")):
        begun = time.monotonic(), sum(os.times()[2:4])
        print(">", command["module"], *command["arguments"], flush=True)
        if status := run(**command):
            sys.exit(f"{command['module']} ended with {status}")
        now = time.monotonic(), sum(os.times()[2:4])
        print(f"< {now[0] - begun[0]:.1f} s, {now[1] - begun[1]:.1f} s of all cores", flush=True)


if __name__ == "__main__":
    main()
