"""How much memory a model takes in each mode, from its configuration and the headers of its files: nothing is loaded.

The formulas, all in bytes; `docs/guides/memory.md` compares them with measured peaks.

    W      of a network: what its parameters and buffers take in their types, laid out without memory
    A      of a network: the peak of what its largest pass makes (`activations.peak_bytes`)
    C      the cache: tokens x layers x key heads x (width of keys + of values) x itemsize
    S      keys of its sinks as the model made them, which lie in host memory
    E      embeddings of tokens: in host memory with a GPU that has one network at a time, unless the head shares them
    L      LoRA's factors, which stay in host memory in float32 so that a model can be saved again
    R      on CPUs: the bfloat16 copies of the language model's matrices that decoding in C reads
    M      for a moment, while LoRA is added to a matrix: two of the largest one in float32

    phase of writing  P1 = W + C + R + A      of reading an image  P2 = W + A      of drawing  P3 = W + A
    resident          sum of W, + C + R + the largest A
    offload, phases   the largest P
    host, on a CPU    LIBRARIES + L + S + M + what the mode takes
    host, with a GPU  LIBRARIES + GPU_LIBRARIES + L + S + M + (offload: sum of W; else: the largest W, while it is read)
    GPU               GPU_CONTEXT + what the mode takes - E
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from seedstory.cache import CachePolicy
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.generation.state_sampler import MAX_LINE_TOKENS
from seedstory.layout import countdown
from seedstory.memory.activations import peak_bytes
from seedstory.memory.modes import MemoryMode
from seedstory.model_files import stored_shapes
from seedstory.modeling.story_model import StoryModel
from seedstory.modeling.vision_tower import AnyTower, lay_out_vision_tower
from seedstory.precision import fast_dtype
from seedstory.settings import StorySettings
from seedstory.story_state import MAX_CAST

LIBRARIES = 350_000_000  # Python, torch, transformers and diffusers, once a story is under way
GPU_LIBRARIES = 600_000_000  # CUDA's own in host memory; not measured by us
GPU_CONTEXT = 600_000_000  # CUDA's context and the workspaces of its libraries; not measured by us
GB = 1e9


@dataclass(frozen=True)
class MemoryNeeds:
    """Peaks of one mode, in bytes.

    Attributes:
        gpu: On the GPU, CUDA's context included; 0 on a CPU.
        host: Of main memory.
        networks: What weights, cache and passes take where the networks run: the rest is for libraries.
        phases: Of the phases "write", "read" and "draw", what each takes alone.
    """

    gpu: int
    host: int
    networks: int
    phases: dict[str, int]


class ModelMemory:
    """What a model takes whose networks are laid out on the meta device.

    Args:
        story_model: With its layout, LoRA merged.
        vision_tower: Reads images.
        detokenizer: Draws.
        lora_bytes: L, of the factors that were merged.
        pages: Of the story that is written.
    """

    def __init__(
        self,
        story_model: StoryModel,
        vision_tower: AnyTower,
        detokenizer: Detokenizer,
        *,
        lora_bytes: int = 0,
        pages: int = StorySettings.pages,
    ) -> None:
        self.lora_bytes, self.pages = lora_bytes, pages
        self._language = {"": story_model}
        self._tower, self._detokenizer = vision_tower, detokenizer
        self._passes: dict[tuple[object, ...], int] = {}

    @classmethod
    def of_folder(cls, folder: Path, *, pages: int = StorySettings.pages) -> ModelMemory:
        """That of a checked model folder.

        Raises:
            ModelError: The folder is damaged, or its base language model is not found.
        """
        shapes = stored_shapes(folder / "story_model").items()
        return cls(
            StoryModel.lay_out(folder / "story_model"),
            lay_out_vision_tower(folder / "vision_tower"),
            Detokenizer.lay_out(folder / "detokenizer"),
            lora_bytes=sum(4 * prod(shape) for name, shape in shapes if ".lora_" in name),
            pages=pages,
        )

    def language(self, quantization: str = "", dtype: torch.dtype = torch.bfloat16) -> StoryModel:
        """The story model without memory; the same object for all types."""
        if quantization not in self._language:
            self._language[quantization] = deepcopy(self._language[""]).quantize(quantization)
        return self._language[quantization].to(dtype)

    def needs(
        self,
        mode: MemoryMode,
        device_type: str,
        *,
        tiled: bool = False,
        dtype: torch.dtype | None = None,
        image_dtype: torch.dtype | None = None,
    ) -> MemoryNeeds:
        """The peaks of a mode.

        Args:
            mode: How the model is held.
            device_type: "cpu" or "cuda".
            tiled: Whether images are decoded in tiles.
            dtype: Of the language model; by default what the device multiplies fastest.
            image_dtype: Of the image networks; by default what the mode says.
        """
        on_cpu = device_type == "cpu"
        dtype = dtype or (fast_dtype("cpu") if on_cpu else torch.bfloat16)
        image_dtype = image_dtype or (dtype if mode.half else torch.float32)
        tokens = self.cache_tokens
        model = self.language(mode.quantization, dtype)
        weights = {"write": weight_bytes(model)}
        weights |= {"read": weight_bytes(self._tower, image_dtype), "draw": self._drawing_weights(image_dtype)}
        beside = {"write": cache_bytes(model, tokens) + (rounded_bytes(model) if on_cpu else 0)}
        passes = {
            "write": self._writing_pass(dtype, mode.quantization),
            "read": self._reading_pass(image_dtype),
            "draw": self._drawing_pass(image_dtype, tiled),
        }
        phases = {name: size + beside.get(name, 0) + passes[name] for name, size in weights.items()}
        if mode.one_at_a_time and not on_cpu:
            phases["write"] -= host_embedding_bytes(model)
        networks = sum(weights.values()) + sum(beside.values()) + max(passes.values())
        if mode.one_at_a_time:
            networks = max(phases.values())
        sinks = CachePolicy().max_sink_tokens * key_bytes(model)
        host = LIBRARIES + self.lora_bytes + sinks + self._merging_bytes
        if on_cpu:
            return MemoryNeeds(0, host + networks, networks, phases)
        host += GPU_LIBRARIES + (sum(weights.values()) if mode.placement == "offload" else max(weights.values()))
        return MemoryNeeds(GPU_CONTEXT + networks, host, networks, phases)

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache has room for: what is kept of evicted pages, the window and the page being written."""
        policy, layout = CachePolicy(), self.language().layout
        assert layout is not None, "a story model that is laid out has its layout"
        label = max(len(layout.page_label_ids(one)) for one in countdown(self.pages))
        page = label + StorySettings.max_caption_tokens + layout.num_visual_tokens + 2
        sinks = policy.most_sinks(self.pages, page, layout.num_visual_tokens)
        held = min(self.pages, policy.window_pages) + 2
        states = (MAX_CAST + self.pages + 2) * (MAX_LINE_TOKENS + 8) if self.language().config.story_state else 0
        tokens = len(layout.opening_ids) + sinks + held * page + states
        return -(-tokens // 64) * 64

    @property
    def _merging_bytes(self) -> int:
        """M."""
        if not self.lora_bytes:
            return 0
        layers = self.language().llm.base_model.modules()
        return 2 * 4 * max(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))

    @property
    def image_networks(self) -> tuple[nn.Module, ...]:
        """The vision tower and the networks of the de-tokenizer."""
        return self._tower, self._detokenizer.unet, self._detokenizer.adapter, self._detokenizer.autoencoder

    def _drawing_weights(self, dtype: torch.dtype) -> int:
        parts = (self._detokenizer.unet, self._detokenizer.adapter, self._detokenizer.autoencoder)
        return sum(weight_bytes(part, dtype) for part in parts)

    def _writing_pass(self, dtype: torch.dtype, quantization: str) -> int:
        model = self.language(quantization, dtype)
        tokens = StorySettings.max_caption_tokens + model.config.num_visual_tokens + 2
        embeds = torch.empty(1, tokens, model.llm.config.hidden_size, dtype=dtype, device="meta")
        features = torch.empty(1, model.config.feature_tokens, model.config.feature_dim, dtype=dtype, device="meta")

        positions = torch.empty(1, tokens, dtype=torch.long, device="meta")
        mask = torch.empty(1, 1, tokens, tokens, dtype=torch.bool, device="meta")

        def write() -> None:
            hidden = model.hidden_states(embeds, positions, mask)
            model.caption_logits(hidden[:, -1:])
            model.decode_features(hidden[:, : model.config.num_visual_tokens])
            model.embed_images(features)

        return self._peak(("write", dtype, quantization), write, model)

    def _reading_pass(self, dtype: torch.dtype) -> int:
        tower = self._tower
        nn.Module.to(tower, dtype)
        size = tower.config.image_size
        pixels = torch.empty(1, 3, size, size, dtype=dtype, device="meta")
        return self._peak(("read", dtype), lambda: tower(pixels), tower)

    def _drawing_pass(self, dtype: torch.dtype, tiled: bool) -> int:
        drawing = self._detokenizer
        for part in (drawing.unet, drawing.adapter, drawing.autoencoder):
            nn.Module.to(part, dtype)
        if not tiled:
            drawing.disable_tiling()
        elif not drawing.enable_tiling():
            tiled = False
        side, config = drawing.latent_size, drawing.adapter.config
        channels = drawing.autoencoder.config.latent_channels
        features = torch.empty(1, config.num_features, config.feature_dim, dtype=dtype, device="meta")
        latents = torch.empty(1, channels, side, side, dtype=dtype, device="meta")
        time = torch.empty(1, device="meta")

        def draw() -> None:
            shown, hidden = (drawing.adapter(one) for one in (features, drawing.adapter.blank(features)))
            guided = drawing.predict(latents, time, shown).float()
            guided += drawing.predict(latents, time, hidden).float()
            del guided
            drawing.autoencoder.decode(latents).float().clamp(-1, 1)

        return self._peak(("draw", dtype, tiled), draw, drawing.unet, drawing.adapter, drawing.autoencoder)

    def _peak(self, key: tuple[object, ...], run: Callable[[], object], *networks: nn.Module) -> int:
        if key not in self._passes:
            known = [tensor for network in networks for tensor in _tensors(network)]
            self._passes[key] = peak_bytes(run, known)
        return self._passes[key]


def parameter_count(memory: ModelMemory) -> tuple[int, int]:
    """Weights of the story model, and of the networks that see and draw."""
    networks: list[nn.Module] = [memory.language(), *memory.image_networks]
    counts = [sum(weight.numel() for weight in network.parameters()) for network in networks]
    return counts[0], sum(counts[1:])


def weight_bytes(network: nn.Module, dtype: torch.dtype | None = None) -> int:
    """W: bytes of all parameters and buffers, each once; floats as if they were of another type."""
    size = 0
    for tensor in _tensors(network):
        size += tensor.numel() * (dtype.itemsize if dtype and tensor.is_floating_point() else tensor.element_size())
    return size


def cache_bytes(model: StoryModel, tokens: int) -> int:
    """C: keys and values of so many tokens."""
    return 2 * tokens * key_bytes(model)


def key_bytes(model: StoryModel) -> int:
    """Bytes of a token's keys in all layers."""
    config = model.llm.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return config.num_hidden_layers * heads * width * model.dtype.itemsize


def rounded_bytes(model: StoryModel) -> int:
    """R: decoding in C reads float32 matrices from bfloat16 copies; others where they lie."""
    if model.dtype != torch.float32:
        return 0
    linears = (layer for layer in model.llm.modules() if type(layer) is nn.Linear)
    return sum(torch.bfloat16.itemsize * layer.weight.numel() for layer in linears)


def host_embedding_bytes(model: StoryModel) -> int:
    """E."""
    embedding = model.llm.get_input_embeddings()
    return 0 if model.has_tied_head else embedding.weight.numel() * model.dtype.itemsize


def _tensors(network: nn.Module) -> list[Tensor]:
    found = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return list(found.values())
