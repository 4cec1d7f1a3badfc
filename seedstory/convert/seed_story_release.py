"""A model folder of ours as SEED-Story's own files, for its code and for those who compare."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from seedstory.convert.checkpoints import new_folder
from seedstory.convert.key_map import KeyMap
from seedstory.convert.seed_story_form import KEYS_AND_VALUES
from seedstory.convert.seed_story_keys import ADAPTER, LANGUAGE_MODEL, LORA, RESAMPLERS, UNET, VISION_TOWER
from seedstory.convert.seed_story_tokenizer import read_image_token_ids
from seedstory.detokenizers.perceiver_adapter import PerceiverAdapter
from seedstory.errors import ModelError
from seedstory.model_files import read_config, tensor_files
from seedstory.model_folder import find_model
from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.qwen_vision_tower import QwenVisionTower

AGENT, TOWER, DETOKENIZER = "agent/pytorch_model.bin", "qwen_vit_G.pt", "detokenizer/pytorch_model.bin"
_FROZEN = re.compile(r"llm\.base_model\.model\.model\.layers\.\d+\..*_proj\.weight|\w+_resampler\.pos_embed")


class SeedStoryRelease:
    """A converted model, perhaps trained further, with names and types of weights as SEED-Story released them.

    What was converted with `dtype=None` and `keep_lora` comes back bit by bit. What the release holds but does not
    use is left out: rotary angles, and norms as they were before training.

    Args:
        model: A model folder.
        tokenizer: Folder of `cvlm_llama2_tokenizer`, which says in which order the image tokens are.
        whole_unet: Write the whole U-Net, and not its keys and values alone.

    Raises:
        ModelError: The model is of another form, or LoRA was added to its weights.
    """

    def __init__(self, model: Path, tokenizer: Path, *, whole_unet: bool = False) -> None:
        self.model, self.whole_unet = find_model(str(model)), whole_unet
        self.config = StoryConfig.from_pretrained(self.model / "story_model")
        kinds = {
            "resampler": (self.config.resampler, "cross_attention"),
            "vision tower": (self._kind("vision_tower"), QwenVisionTower.__name__),
            "adapter": (self._kind("detokenizer/adapter"), PerceiverAdapter.__name__),
        }
        for part, (found, wanted) in kinds.items():
            if found != wanted:
                raise ModelError(f"{self.model} is not a model of SEED-Story's form: its {part} is a {found}")
        if not self.config.lora_rank:
            raise ModelError(
                f"in {self.model} LoRA was added to the weights, from which it cannot be told again: convert the "
                "release anew and keep LoRA apart"
            )
        start = self.config.image_start_id
        self.image_token_ids = read_image_token_ids(tokenizer, self.config.num_visual_tokens, start)

    def _kind(self, part: str) -> str:
        return str(read_config(self.model / part).get("_class_name"))

    def write(self, folder: Path, report: Callable[[str], None] = lambda line: None) -> None:
        """Write the three files into a new folder; it is there whole or not at all.

        Args:
            folder: A new one.
            report: Called with what is done next.

        Raises:
            ModelError: The folder exists.
        """
        with new_folder(folder) as unfinished:
            for name, weights in ((TOWER, self.tower), (AGENT, self.agent), (DETOKENIZER, self.detokenizer)):
                report(f"writing {name}")
                (unfinished / name).parent.mkdir(exist_ok=True)
                torch.save(weights(), unfinished / name)

    def tower(self) -> dict[str, Tensor]:
        """Weights of the vision tower."""
        return {name: tensor.bfloat16() for name, tensor in self._read("vision_tower", VISION_TOWER).items()}

    def agent(self) -> dict[str, Tensor]:
        """Weights of the language model and the resamplers."""
        weights = self._read("story_model/base_lm", LANGUAGE_MODEL)
        own = self._read("story_model", KeyMap(("", "")))
        for name, rows in (("model.embed_tokens", own["token_rows"]), ("lm_head", own["image_start_head"])):
            released = LANGUAGE_MODEL.released(f"{name}.weight")
            assert released is not None
            weights[released] = weights[released].float().clone()
            weights[released][self.image_token_ids[: len(rows)]] = rows.float()
        for keys in (RESAMPLERS, LORA):
            weights |= {released: tensor for name, tensor in own.items() if (released := keys.released(name))}
        return {
            name: tensor.to(torch.bfloat16 if _FROZEN.fullmatch(name) else torch.float32)
            for name, tensor in weights.items()
        }

    def detokenizer(self) -> dict[str, Tensor]:
        """Weights of the adapter, and what was trained of the U-Net."""
        weights = self._read("detokenizer/adapter", ADAPTER)
        for name, tensor in self._read("detokenizer/unet", UNET).items():
            if self.whole_unet or KEYS_AND_VALUES.fullmatch(name):
                weights[name] = tensor
        return {name: tensor.float() for name, tensor in weights.items()}

    def _read(self, part: str, keys: KeyMap) -> dict[str, Tensor]:
        """The weights of a part that the release has, by its names."""
        weights = {}
        for file in tensor_files(self.model / part):
            with safe_open(file, "pt") as stored:
                for name in stored.keys():
                    if released := keys.released(name):
                        weights[released] = stored.get_tensor(name)
        return weights
