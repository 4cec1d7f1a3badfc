"""SEED-Story's released checkpoints become a model folder of ours.

The agent's file holds the whole language model, so Llama 2 is not needed beside it; the de-tokenizer's holds what was
trained of Stable Diffusion XL. Weights are read one by one from files mapped into memory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor, nn

from seedstory.convert.checkpoints import (
    SafetensorsWriter,
    check_released,
    new_folder,
    open_checkpoint,
    open_part,
    without_unused,
)
from seedstory.convert.seed_story_credits import CREDITS
from seedstory.convert.seed_story_form import SeedStoryForm
from seedstory.convert.seed_story_keys import ADAPTER, LANGUAGE_MODEL, LORA, RESAMPLERS, UNET, UNUSED, VISION_TOWER
from seedstory.convert.seed_story_tokenizer import read_image_token_ids, write_base_tokenizer
from seedstory.detokenizers.components import base_folder, load_scheduler
from seedstory.errors import ModelError
from seedstory.model_credits import write_credits
from seedstory.model_files import check_network, read_config, tensor_files
from seedstory.modeling.checkpoint import WEIGHTS_FILE
from seedstory.modeling.qwen_vision_tower import QwenVisionTower
from seedstory.modeling.vision_tower import load_vision_tower
from seedstory.pipeline import StoryPipeline

_TOWER_IN_QWEN_VL = "transformer.visual."
WEIGHTS = "diffusion_pytorch_model"  # what diffusers calls the files of a network


@dataclass(frozen=True)
class SeedStoryFiles:
    """What was released, and what it stands on.

    Attributes:
        agent: `pytorch_model.bin` of the language model.
        vision_tower: `qwen_vit_G.pt`, or the folder of Qwen-VL-Chat, of which it is a part.
        detokenizer: `pytorch_model.bin` of the de-tokenizer.
        tokenizer: Folder of `cvlm_llama2_tokenizer`.
        sdxl: Stable Diffusion XL in diffusers' layout, a folder or a Hub id.
    """

    agent: Path
    vision_tower: Path
    detokenizer: Path
    tokenizer: Path
    sdxl: str


class SeedStoryConversion:
    """Checked files, ready to be written; making it reads no weight.

    Args:
        files: What was released.
        keep_lora: Keep LoRA apart, to train it further; otherwise it is added to the weights (in float32, rounded
            once).
        dtype: Type of the large networks; None leaves each weight its own. The agent's own parts (image tokens,
            resamplers, LoRA) stay as released.
        form: Sizes of the networks.

    Raises:
        ModelError: A file is missing or damaged, or its weights are not those of the release.
    """

    def __init__(
        self,
        files: SeedStoryFiles,
        *,
        keep_lora: bool = False,
        dtype: torch.dtype | None = torch.bfloat16,
        form: SeedStoryForm | None = None,
    ) -> None:
        self.files, self.keep_lora, self.dtype, self.form = files, keep_lora, dtype, form or SeedStoryForm()
        story = self.form.story
        self.image_token_ids = read_image_token_ids(
            files.tokenizer, story["num_visual_tokens"], self.form.image_start_id
        )
        with tempfile.TemporaryDirectory() as scratch:
            write_base_tokenizer(files.tokenizer, Path(scratch), self.form.image_start_id)
        tower = files.vision_tower
        self.tower = open_part(tower, _TOWER_IN_QWEN_VL) if tower.is_dir() else open_checkpoint(tower)
        check_released(self.form.tower_weights(), self.tower, files.vision_tower, "SEED-Story's vision tower")
        self.agent = without_unused(open_checkpoint(files.agent), UNUSED)
        check_released(self.form.agent_weights(), self.agent, files.agent, "SEED-Story's agent")
        self.sdxl = base_folder(files.sdxl)
        for name, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
            check_network(kind, self.sdxl / name)
        load_scheduler(self.sdxl / "scheduler")
        self.unet_config = read_config(self.sdxl / "unet")
        if self.unet_config.get("addition_embed_type") != "text_time":
            raise ModelError(f"{self.sdxl / 'unet'} is not the U-Net of an SDXL")
        self.detokenizer = open_checkpoint(files.detokenizer)
        whole = any(name.startswith("unet.") and ".attn" not in name for name in self.detokenizer)
        wanted = self.form.detokenizer_weights(self.unet_config, whole)
        check_released(wanted, self.detokenizer, files.detokenizer, "SEED-Story's de-tokenizer")

    @property
    def summary(self) -> list[str]:
        """What was found, a line for each file."""
        found = (
            ("vision tower", self.files.vision_tower, self.tower),
            ("agent", self.files.agent, self.agent),
            ("de-tokenizer", self.files.detokenizer, self.detokenizer),
        )
        return [
            f"{what}: {len(weights)} tensors, {sum(t.numel() for t in weights.values()):,} parameters in {file}"
            for what, file, weights in found
        ]

    def write(self, folder: Path, report: Callable[[str], None] = lambda line: None) -> None:
        """Write the model folder; it is there whole or not at all.

        Args:
            folder: A new one.
            report: Called with what is done next.

        Raises:
            ModelError: The folder exists, or a weight is NaN or infinite.
        """
        with new_folder(folder) as unfinished:
            for what, write in (
                ("vision_tower", self._write_tower),
                ("story_model", self._write_story_model),
                ("detokenizer", self._write_detokenizer),
            ):
                report(f"writing {what}")
                (unfinished / what).mkdir()
                write(unfinished / what)
            report("computing what guidance steers away from")
            self._write_adapter(unfinished / "detokenizer" / "adapter", unfinished / "vision_tower")
            write_credits(unfinished, CREDITS)
            StoryPipeline.write_index(unfinished)

    def _write_tower(self, folder: Path) -> None:
        with torch.device("meta"):
            QwenVisionTower(**self.form.tower).save_config(folder)
        writer = SafetensorsWriter(folder, WEIGHTS, self.files.vision_tower, self.dtype)
        for name, tensor in self.tower.items():
            writer.add(_known(VISION_TOWER.ours(name)), tensor)
        writer.close()

    def _write_story_model(self, folder: Path) -> None:
        base = folder / "base_lm"
        base.mkdir()
        llama = self.form.llama_config(self.dtype or torch.bfloat16)
        llama.save_pretrained(base)
        write_base_tokenizer(self.files.tokenizer, base, self.form.image_start_id)
        writer = SafetensorsWriter(base, "model", self.files.agent, self.dtype)
        for name, tensor in self.language_weights():
            writer.add(name, tensor)
        writer.close()
        config = self.form.story_config(llama, self.keep_lora)
        config.architectures = ["StoryModel"]
        config.save_pretrained(folder)
        writer = SafetensorsWriter(folder, Path(WEIGHTS_FILE).stem, self.files.agent, limit=2**60)
        for name, tensor in self.story_weights():
            writer.add(name, tensor)
        writer.close()

    def language_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The base language model's weights by our names, with LoRA added to them unless it is kept."""
        scale = self.form.story["lora_alpha"] / self.form.story["lora_rank"]
        for released, tensor in self.agent.items():
            name = LANGUAGE_MODEL.ours(released)
            if name is None:
                continue
            factors = [LORA.released(f"llm.{name.removesuffix('.weight')}.lora_{one}.weight") for one in "AB"]
            if not self.keep_lora and None not in factors:
                down, up = (self.agent[_known(factor)].float() for factor in factors)
                tensor = tensor.float() + scale * (up @ down)
            yield name, tensor

    def story_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The story model's own weights by our names; rows of image tokens in our order."""
        names = (LANGUAGE_MODEL.released(f"{name}.weight") for name in ("model.embed_tokens", "lm_head"))
        rows, head = (self.agent[_known(name)] for name in names)
        yield "token_rows", rows[self.image_token_ids].float()
        yield "image_start_head", head[self.image_token_ids[:1]].float()
        for released, tensor in self.agent.items():
            name = RESAMPLERS.ours(released) or (LORA.ours(released) if self.keep_lora else None)
            if name is not None:
                yield name, tensor

    def _write_detokenizer(self, folder: Path) -> None:
        for name, target in (("scheduler", "scheduler"), ("vae", "autoencoder"), ("unet", "unet")):
            (folder / target).mkdir()
            for config in sorted((self.sdxl / name).glob("*config.json")):
                shutil.copyfile(config, folder / target / config.name)
        writer = SafetensorsWriter(folder / "autoencoder", WEIGHTS, self.sdxl / "vae")
        for file in _network_files(self.sdxl / "vae"):
            with safe_open(file, "pt") as stored:
                for weight in stored.keys():
                    writer.add(weight, stored.get_tensor(weight))
        writer.close()
        trained = {UNET.ours(released): tensor for released, tensor in self.detokenizer.items()}
        writer = SafetensorsWriter(folder / "unet", WEIGHTS, self.files.detokenizer, self.dtype)
        for file in _network_files(self.sdxl / "unet"):
            with safe_open(file, "pt") as stored:
                for weight in stored.keys():
                    writer.add(weight, trained[weight] if weight in trained else stored.get_tensor(weight))
        writer.close()

    def _write_adapter(self, folder: Path, tower_folder: Path) -> None:
        folder.mkdir()
        vae = read_config(self.sdxl / "vae")
        image_size = self.unet_config["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
        with torch.device("meta"):
            self.form.adapter_for(self.unet_config, image_size).save_config(folder)
        writer = SafetensorsWriter(folder, WEIGHTS, self.files.detokenizer, self.dtype)
        for released, tensor in self.detokenizer.items():
            if (name := ADAPTER.ours(released)) is not None:
                writer.add(name, tensor)
        tower = load_vision_tower(tower_folder, self.dtype or torch.bfloat16)
        assert isinstance(tower, QwenVisionTower), "as written before"
        writer.add("blank_features", exact_blank_features(tower))
        writer.close()


@torch.inference_mode()
def exact_blank_features(tower: QwenVisionTower) -> Tensor:
    """The tower's `blank_features` [F, D], computed in float32 with one block of it in float32 at a time."""
    dtype = tower.dtype

    def widen(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        block.float()

    def narrow(block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        block.to(dtype)

    blocks, tower.blocks = tower.blocks, nn.ModuleList()
    nn.Module.float(tower)
    tower.blocks = blocks
    handles = [block.register_forward_pre_hook(widen) for block in blocks]
    handles += [block.register_forward_hook(narrow) for block in blocks]
    try:
        return tower.blank_features().clone()
    finally:
        for handle in handles:
            handle.remove()
        nn.Module.to(tower, dtype)


def _network_files(folder: Path) -> list[Path]:
    """Weights of a network in diffusers' layout; copies in half precision may lie beside them."""
    plain = folder / f"{WEIGHTS}.safetensors"
    return [plain] if plain.is_file() else tensor_files(folder)


def _known(name: str | None) -> str:
    assert name is not None, "every name was checked"
    return name
