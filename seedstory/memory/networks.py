"""Reading the networks of a model folder in one of the ways to hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedstory.memory.machine import release_free_memory
from seedstory.memory.phases import NetworkPhases

if TYPE_CHECKING:
    import torch

    from seedstory.detokenizers.detokenizer import Detokenizer
    from seedstory.memory.choose import MemoryPlan
    from seedstory.modeling.story_model import StoryModel
    from seedstory.modeling.vision_tower import AnyTower


@dataclass
class Networks:
    """How the networks of a folder are read.

    Attributes:
        folder: A checked model folder.
        dtype: Of the language model.
        decode_dtype: From which its matrices are read in decoding; None for the type that they have.
        quantization: How its matrices are stored.
        image_dtype: Of the image networks.
        devices: Where each component works.
        plan: How they are held; None for all on their devices.
        phases: With "phases", what reads each when it works.
    """

    folder: Path
    dtype: torch.dtype
    decode_dtype: torch.dtype | None
    quantization: str
    image_dtype: torch.dtype
    devices: Mapping[str, str | torch.device]
    plan: MemoryPlan | None = None
    phases: NetworkPhases | None = None

    def made(self) -> dict[str, Any]:
        """All components by name, as a pipeline takes them.

        Raises:
            ModelError: The folder is incomplete or damaged.
        """
        load: dict[str, Callable[[], Any]] = {
            "story_model": self._story_model,
            "vision_tower": self._vision_tower,
            "detokenizer": self._detokenizer,
        }
        if self.plan is None or self.plan.mode.placement != "phases":
            networks = {name: read() for name, read in load.items()}
            release_free_memory()  # what reading took
            return networks
        import torch

        from seedstory.detokenizers.detokenizer import Detokenizer
        from seedstory.modeling.story_model import StoryModel
        from seedstory.modeling.vision_tower import lay_out_vision_tower

        language = StoryModel.lay_out(self.folder / "story_model", dtype=self.dtype, quantization=self.quantization)
        language.decode_dtype = self.decode_dtype
        laid_out = {
            "story_model": language,
            "vision_tower": lay_out_vision_tower(self.folder / "vision_tower"),
            "detokenizer": Detokenizer.lay_out(self.folder / "detokenizer"),
        }
        self.phases = NetworkPhases(laid_out, load, torch.device(self.devices["story_model"]))
        return laid_out

    def _device(self, name: str) -> str | torch.device:
        offloaded = self.plan is not None and self.plan.mode.placement == "offload"
        return "cpu" if offloaded else self.devices[name]

    def _story_model(self) -> StoryModel:
        from seedstory.modeling.story_model import StoryModel

        model = StoryModel.from_pretrained(
            self.folder / "story_model",
            dtype=self.dtype,
            quantization=self.quantization,
        )
        model.decode_dtype = self.decode_dtype
        if self.plan is not None and self.plan.mode.one_at_a_time and str(self.devices["story_model"]) != "cpu":
            model.keep_embedding_on_host()
        return model.to(self._device("story_model"))

    def _vision_tower(self) -> AnyTower:
        from seedstory.modeling.vision_tower import load_vision_tower

        tower: AnyTower = load_vision_tower(self.folder / "vision_tower", self.image_dtype).to(
            self._device("vision_tower")
        )
        return tower

    def _detokenizer(self) -> Detokenizer:
        from seedstory.detokenizers.detokenizer import Detokenizer

        detokenizer = Detokenizer.from_pretrained(self.folder / "detokenizer", dtype=self.image_dtype)
        if self.plan is not None and self.plan.tiled:
            detokenizer.enable_tiling()
        return detokenizer.to(self._device("detokenizer"))
