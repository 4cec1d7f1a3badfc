"""Settings of a `StoryModel`."""

import math
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from seedstory.errors import ModelError
from seedstory.layout import LAYOUTS
from seedstory.model_files import described, read_config

FEATURE_HEADS = ("regression", "flow")
RESAMPLERS = ("transformer", "cross_attention")
_ATTENTION = ("sdpa", "eager", "seedstory_packed")
_WEIGHTS = ("lm_loss_weight", "visual_loss_weight", "cosine_weight", "mse_weight")
_LARGEST = {  # far beyond any model; what is more is a mistake, or meant to fill the memory
    "num_visual_tokens": 4_096,
    "feature_tokens": 65_536,
    "feature_dim": 65_536,
    "input_resampler_width": 65_536,
    "input_resampler_depth": 1_000,
    "input_resampler_heads": 1_000,
    "output_resampler_width": 65_536,
    "output_resampler_depth": 1_000,
    "output_resampler_heads": 1_000,
    "flow_depth": 1_000,
    "flow_steps": 10_000,
    "lora_rank": 65_536,
}
_ROPE_TYPES_WITHOUT_FIXED_ANGLES = ("dynamic", "longrope")
_LAYER_TYPES = ("full_attention", "sliding_attention")


class StoryConfig(PreTrainedConfig):
    """Everything that decides the shapes of a `StoryModel` and how its losses are weighted.

    Args:
        base_lm: Name, Hub id or folder of the base language model; see `base_lm_folder`.
        base_lm_config: The base model's own configuration, as a dictionary with its `model_type`.
        num_visual_tokens: `N`, visual tokens of a picture inside the language model.
        feature_tokens: `F`, tokens of a picture's features; a square number, because they lie on a grid.
        feature_dim: `Df`, width of a feature token.
        resampler: Kind of both resamplers: "transformer" (see `seedstory.resampler`) or "cross_attention" (a single
            layer, see `CrossAttentionResampler`; its width is that of what it gives, and its depth 1).
        input_resampler_width, input_resampler_depth, input_resampler_heads: Size of features → embeddings.
        output_resampler_width, output_resampler_depth, output_resampler_heads: Size of hidden states → features.
        feature_head: "regression" (features are their mean) or "flow" (features are drawn; see `FlowResampler`).
        flow_depth: Blocks that a flow adds to the output resampler.
        flow_steps: Euler steps of a flow from noise to features.
        lora_rank: Rank of the LoRA matrices; 0 trains no LoRA.
        lora_alpha: LoRA is scaled by `lora_alpha / lora_rank`.
        lora_dropout: Dropout before LoRA, in training.
        lora_targets: Names of the linear layers that get LoRA, or "all-linear".
        lm_loss_weight: Weight of the captions' cross-entropy.
        visual_loss_weight: Weight of the pictures' regression loss, or of the flow's.
        cosine_weight: Weight of `1 - cosine` (per feature token) in the regression loss.
        mse_weight: Weight of the mean squared error in the regression loss.
        layout: Order of the tokens of a story, one of `seedstory.layout.LAYOUTS`.
        story_state: Whether the model was trained to write and follow a cast and a plan (`seedstory.story_state`).
        image_start_id: Id of `<img>`; `</img>` and the query tokens follow it.

    Raises:
        ModelError: If a setting is unknown, out of range or does not fit another.
    """

    model_type = "seedstory"

    base_lm: str = "smollm2-135m-instruct"
    base_lm_config: dict[str, Any] | None = None
    num_visual_tokens: int = 16
    feature_tokens: int = 64
    feature_dim: int = 64
    resampler: str = "transformer"
    input_resampler_width: int = 192
    input_resampler_depth: int = 2
    input_resampler_heads: int = 4
    output_resampler_width: int = 256
    output_resampler_depth: int = 3
    output_resampler_heads: int = 4
    feature_head: str = "regression"
    flow_depth: int = 2
    flow_steps: int = 4
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    lora_targets: str | list[str] = "all-linear"
    lm_loss_weight: float = 1.0
    visual_loss_weight: float = 1.0
    cosine_weight: float = 1.0
    mse_weight: float = 1.0
    layout: str = LAYOUTS[0]
    story_state: bool = False
    image_start_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        unknown = [key for key in kwargs if not key.startswith("_") and not hasattr(PreTrainedConfig, key)]
        unknown = [key for key in unknown if key not in ("attn_implementation", "name_or_path", "torch_dtype")]
        if unknown:
            raise ModelError(f"Unknown StoryConfig settings: {', '.join(sorted(unknown))}.")
        check_attention_name(kwargs, "StoryConfig")
        super().__post_init__(**kwargs)
        self._check()

    @classmethod
    def of_folder(cls, folder: str | Path) -> "StoryConfig":
        """The configuration in a folder that may come from anyone.

        Raises:
            ModelError: There is none, or it is not one.
        """
        where = Path(folder) / "config.json"
        settings = read_config(folder)
        if settings.get("model_type") != cls.model_type:
            raise ModelError(f"{where} describes a {settings.get('model_type')!r:.60}, not a story model")
        return described(lambda: cls.from_dict(settings), where, cls.__name__)

    def _check(self) -> None:
        self._check_types()
        for name in ("num_visual_tokens", "feature_tokens", "feature_dim"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if round(self.feature_tokens**0.5) ** 2 != self.feature_tokens:
            raise ModelError(f"feature_tokens must be a square number (a grid), got {self.feature_tokens}.")
        for side in ("input", "output"):
            width, heads = getattr(self, f"{side}_resampler_width"), getattr(self, f"{side}_resampler_heads")
            if width < 4 or width % 4 or heads < 1 or width % heads:
                raise ModelError(
                    f"{side}_resampler_width ({width}) must be a multiple of 4 and of {side}_resampler_heads ({heads})."
                )
            if getattr(self, f"{side}_resampler_depth") < 1:
                raise ModelError(f"{side}_resampler_depth must be at least 1.")
        if self.feature_head not in FEATURE_HEADS:
            raise ModelError(f"feature_head must be one of {', '.join(FEATURE_HEADS)}, got {self.feature_head!r}.")
        if self.resampler not in RESAMPLERS:
            raise ModelError(f"resampler must be one of {', '.join(RESAMPLERS)}, got {self.resampler!r}.")
        if self.layout not in LAYOUTS:
            raise ModelError(f"layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}.")
        if self.story_state and self.layout != LAYOUTS[0]:
            raise ModelError(f"layout {self.layout} has no place for a story state: set story_state to false.")
        if self.resampler == "cross_attention":
            self._check_cross_attention()
        if self.flow_depth < 1 or self.flow_steps < 1:
            raise ModelError(f"flow_depth ({self.flow_depth}) and flow_steps ({self.flow_steps}) must be at least 1.")
        if self.lora_rank < 0 or not 0 <= self.lora_dropout < 1:
            raise ModelError(f"Need lora_rank >= 0 and 0 <= lora_dropout < 1: {self.lora_rank}, {self.lora_dropout}.")
        for name in _WEIGHTS:
            if not getattr(self, name) >= 0:
                raise ModelError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.base_lm_config is not None:
            check_base_lm(self.language_config())

    def _check_cross_attention(self) -> None:
        if self.feature_head != "regression":
            raise ModelError(f"resampler cross_attention has no feature_head {self.feature_head!r}: take regression.")
        if self.input_resampler_depth != 1 or self.output_resampler_depth != 1:
            raise ModelError("resampler cross_attention is one layer: set both resampler depths to 1.")
        if self.output_resampler_width != self.feature_dim:
            raise ModelError(
                f"resampler cross_attention gives features of its own width: output_resampler_width "
                f"({self.output_resampler_width}) must be feature_dim ({self.feature_dim})."
            )
        if round(self.num_visual_tokens**0.5) ** 2 != self.num_visual_tokens:
            raise ModelError(
                f"resampler cross_attention needs num_visual_tokens on a square grid, got {self.num_visual_tokens}."
            )

    def _check_types(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value > largest:
                raise ModelError(f"{name} must be a whole number up to {largest:,}, not {value!r:.40}.")
        for name in ("lora_alpha", "lora_dropout", *_WEIGHTS):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ModelError(f"{name} must be a number, not {value!r:.40}.")
        for name in ("base_lm", "feature_head", "resampler", "layout"):
            if not isinstance(getattr(self, name), str):
                raise ModelError(f"{name} must be a name, not {getattr(self, name)!r:.40}.")
        targets = [self.lora_targets] if isinstance(self.lora_targets, str) else self.lora_targets
        if not isinstance(targets, list | tuple | set) or not all(isinstance(target, str) for target in targets):
            raise ModelError(f"lora_targets must be names of layers, not {self.lora_targets!r:.40}.")
        if not isinstance(self.story_state, bool):
            raise ModelError(f"story_state must be true or false, not {self.story_state!r:.40}.")
        start = self.image_start_id
        if start is not None and (isinstance(start, bool) or not isinstance(start, int)):
            raise ModelError(f"image_start_id must be a whole number, not {start!r:.40}.")

    def language_config(self) -> PreTrainedConfig:
        """The base model's configuration as an object.

        Raises:
            ModelError: If this configuration has no `base_lm_config`.
        """
        if not isinstance(self.base_lm_config, dict) or "model_type" not in self.base_lm_config:
            raise ModelError("StoryConfig.base_lm_config is missing; build the model with StoryModel.from_base(...).")
        settings = dict(self.base_lm_config)
        check_attention_name(settings, "StoryConfig.base_lm_config")
        if settings.pop("quantization_config", None) is not None:
            raise ModelError("StoryConfig.base_lm_config asks for quantized weights: give a model with plain weights.")
        kind = settings.pop("model_type")
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            raise ModelError(f"StoryConfig.base_lm_config is of the unknown model_type {kind!r:.60}.")
        return described(lambda: AutoConfig.for_model(kind, **settings), "StoryConfig.base_lm_config", str(kind))


def check_attention_name(settings: dict[str, Any], where: str) -> None:
    """Refuse attention by any other name: transformers would look for a kernel of that name on the Hub and run it."""
    for key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
        if settings.get(key) not in (None, *_ATTENTION):
            raise ModelError(f"{where}.{key} must be one of {', '.join(_ATTENTION)}, not {settings[key]!r:.80}.")


def check_base_lm(config: PreTrainedConfig) -> None:
    """Refuse language models on which captions, masks or the cache would silently be wrong.

    Raises:
        ModelError: If the model has no rotary positions, moving rotary tables, layers that are neither full nor
            sliding-window attention, layers without a cache of their own, soft-capped scores or rescaled logits.
    """
    name = config.model_type
    if getattr(config, "text_config", None) is not None:
        raise ModelError(f"{name!r} is a multimodal model: give its folder or Hub id, of which the text model is read.")
    for rope in _rope_parameters(config):
        if "rope_theta" not in rope:
            raise ModelError(f"Base LM {name!r} has no plain rotary positions (RoPE), which the story cache needs.")
        if rope.get("rope_type", "default") in _ROPE_TYPES_WITHOUT_FIXED_ANGLES:
            raise ModelError(
                f"Base LM {name!r} uses {rope['rope_type']!r} RoPE, whose angles change with the length; cached keys "
                "cannot be moved then. Set rope_parameters['rope_type'] to 'default', 'linear', 'llama3' or 'yarn'."
            )
    if strange := set(getattr(config, "layer_types", None) or []) - set(_LAYER_TYPES):
        raise ModelError(f"Base LM {name!r} has layers of the type {min(strange)}: only {_LAYER_TYPES} are supported.")
    windows = layer_windows(config)
    if len(windows) != config.num_hidden_layers or any(window is not None and window < 1 for window in windows):
        raise ModelError(f"Base LM {name!r}: layer_types and sliding_window do not describe its layers.")
    if getattr(config, "use_bidirectional_attention", None):
        raise ModelError(f"Base LM {name!r} attends in both directions, so it cannot write.")
    if getattr(config, "num_kv_shared_layers", 0):
        raise ModelError(f"Base LM {name!r} has layers that share a cache (num_kv_shared_layers), not supported.")
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise ModelError(
            f"Base LM {name!r} caps its attention scores (attn_logit_softcapping), which is not supported."
        )
    for setting in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(config, setting, None) not in (None, 1, 1.0):
            raise ModelError(f"Base LM {name!r} rescales its logits ({setting}), which is not supported.")


def layer_windows(config: PreTrainedConfig) -> list[int | None]:
    """For each layer of a language model how many tokens one sees, itself included; None where it sees all before."""
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = getattr(config, "layer_types", None)
    if not kinds:  # such as Mistral's
        return [window] * config.num_hidden_layers
    if window is None and "sliding_attention" in kinds:
        raise ModelError(f"Base LM {config.model_type!r} has sliding layers, but no sliding_window.")
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _rope_parameters(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """The rotary settings of a language model: one for all layers, or one for each type of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [part for part in rope.values() if isinstance(part, dict)] or [rope]


AutoConfig.register(StoryConfig.model_type, StoryConfig)
