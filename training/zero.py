"""What DeepSpeed ZeRO needs before a run: a group of processes, and its own settings."""

from __future__ import annotations

import os
import socket
from typing import Any

from training.config import RunConfig


def group_of_one() -> dict[str, str]:
    """The environment of a lone process, where there is no launcher: DeepSpeed asks for a group even of one."""
    if "RANK" in os.environ:
        return {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def deepspeed_plugin(config: RunConfig) -> Any:
    """What accelerate has to know for the configured ZeRO stage.

    Raises:
        ValueError: DeepSpeed is not installed.
    """
    try:
        import deepspeed  # noqa: F401
    except ImportError:
        raise ValueError(
            f"zero_stage {config.zero_stage} needs DeepSpeed: pip install 'seedstory[deepspeed]'"
        ) from None
    from accelerate import DeepSpeedPlugin

    zero: dict[str, object] = {"stage": config.zero_stage}
    if config.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu"}
        if config.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    return DeepSpeedPlugin(
        hf_ds_config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": config.max_grad_norm,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 2**31,
        }
    )
