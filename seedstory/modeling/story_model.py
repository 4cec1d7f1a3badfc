"""The language half of the house: a causal language model that reads and writes pictures as features.

Shape legend: `B` stories, `T` packed tokens, `P` pages of all stories, `S` pages with a query branch (supervised
pictures), `N` visual tokens, `F` feature tokens of width `Df`, `D` hidden width, `V` captions' vocabulary.
"""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForCausalLM, Cache, PreTrainedModel
from transformers.utils import ModelOutput

from seedstory.errors import ModelError
from seedstory.layout import Places, StoryLayout, find_places
from seedstory.model_files import check_counts, check_files, check_shapes, described, stored_shapes
from seedstory.modeling.base_lm import (
    base_lm_config,
    base_lm_folder,
    base_lm_name,
    embedding_scale,
    load_base_lm,
    load_tokenizer,
    resolve_base_lm,
)
from seedstory.modeling.checkpoint import read_lora, read_trained, resolve_checkpoint, trained_state, write_trained
from seedstory.modeling.configuration import StoryConfig, check_base_lm, layer_windows
from seedstory.modeling.cross_attention import CrossAttentionResampler
from seedstory.modeling.flash_attention import Runs, find_runs, kernel_of
from seedstory.modeling.flow_head import FlowResampler, make_output_resampler
from seedstory.modeling.host_embedding import HostEmbedding
from seedstory.modeling.layer_masks import layer_masks
from seedstory.modeling.lora import add_in_product, merge_lora
from seedstory.modeling.packed_attention import NAME as PACKED_ATTENTION
from seedstory.modeling.quantization import check_quantization, load_quantized, quantization_of, quantize
from seedstory.modeling.token_rows import (
    MOST_TOKENS_WITHOUT_EMBEDDING,
    check_tokenizer,
    new_rows,
    with_missing_scores,
)
from seedstory.resampler import InputResampler


def make_input_resampler(
    config: StoryConfig, embedding_dim: int, embedding_rms: float = 1.0
) -> InputResampler | CrossAttentionResampler:
    """The input resampler that the settings name, untrained, for embeddings of this width and size.

    Raises:
        ModelError: It gives embeddings of its own width, and that is another one.
    """
    if config.resampler == "cross_attention":
        if config.input_resampler_width != embedding_dim:
            raise ModelError(
                f"resampler cross_attention gives embeddings of its own width: input_resampler_width "
                f"({config.input_resampler_width}) must be that of the base LM's embeddings ({embedding_dim})."
            )
        return CrossAttentionResampler(
            config.num_visual_tokens,
            config.feature_tokens,
            config.feature_dim,
            width=embedding_dim,
            heads=config.input_resampler_heads,
        )
    return InputResampler(
        config.feature_tokens,
        config.feature_dim,
        config.num_visual_tokens,
        embedding_dim,
        width=config.input_resampler_width,
        depth=config.input_resampler_depth,
        heads=config.input_resampler_heads,
        embedding_rms=embedding_rms,
    )


@dataclass
class StoryModelOutput(ModelOutput):
    """What `StoryModel.forward` returns.

    Attributes:
        loss: Weighted sum of the losses that could be computed, scalar.
        lm_loss: Mean cross-entropy over the supervised tokens, scalar.
        visual_loss: `cosine_weight * (1 - cosine) + mse_weight * MSE`, mean over tokens and pictures, scalar; of a
            flow its own loss.
        cosine_loss: `1 - cosine` of `features`, without its weight, scalar.
        mse_loss: The MSE of `features`, without its weight, scalar.
        context_embeddings: By which the pages' pictures are read, `[P, N, D]`.
        codes: What the output resampler read at the queries of these pages, `[S, N, W]`.
        features: Predicted features of the pages that have a query branch, in order, float32, `[S, F, Df]`. Those of
            a flow are drawn and carry no gradient.
        last_hidden_state: Hidden states after the final norm, `[B, T, D]`.
    """

    loss: torch.Tensor | None = None
    lm_loss: torch.Tensor | None = None
    visual_loss: torch.Tensor | None = None
    cosine_loss: torch.Tensor | None = None
    mse_loss: torch.Tensor | None = None
    context_embeddings: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    features: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None


class StoryModel(PreTrainedModel):
    """A rotary causal language model with LoRA, image tokens, and a resampler on either side.

    The added tokens are rows of their own (`token_rows`) beside the frozen embedding, and captions are chosen from
    the base vocabulary and `<img>` alone. peft's `trainable_token_indices` would train the same numbers, but it
    copies the whole embedding matrix in every forward pass and builds its whole gradient in every backward pass.

    Build it with `from_base` or `from_pretrained`; the constructor alone gives random weights.

    Args:
        config: Settings; needs `base_lm_config` and `image_start_id`.
        llm: The base language model; random from `config.base_lm_config` if None.

    Attributes:
        layout: Ids of the story's pieces, with the tokenizer; None after the bare constructor.
        merged_lora: Factors of LoRA that was merged into the base weights, by their names in a checkpoint.
        decode_dtype: Type from which the native decoding reads matrices; None for the one that they have.
        embedding_scale: By which the language model multiplies embeddings of tokens.
        windows: Of each layer how many tokens one sees, itself included; None where it sees all before.
    """

    config_class = StoryConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: StoryConfig, llm: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        language = config.language_config()
        largest = language.vocab_size + MOST_TOKENS_WITHOUT_EMBEDDING
        if config.image_start_id is None or not 0 < config.image_start_id <= largest:
            raise ModelError(
                f"StoryConfig.image_start_id must lie in 1..{largest} (right after the base vocabulary), "
                f"got {config.image_start_id}."
            )
        self.llm = AutoModelForCausalLM.from_config(language, trust_remote_code=False) if llm is None else llm
        self.llm.requires_grad_(False)
        if self.llm.config._attn_implementation == "sdpa":
            self.llm.set_attn_implementation(PACKED_ATTENTION)
        self.layout: StoryLayout | None = None
        self.decode_dtype: torch.dtype | None = None
        self.merged_lora: dict[str, torch.Tensor] = {}
        self.embedding_scale = embedding_scale(self.llm)
        self.windows = layer_windows(self.llm.config)
        embedding = self.llm.get_input_embeddings().weight[: config.image_start_id].detach().float()
        self.token_rows = nn.Parameter(new_rows(embedding, 2 + config.num_visual_tokens))
        head = self.llm.get_output_embeddings().weight
        self.image_start_head: nn.Parameter | None = None
        if head is not self.llm.get_input_embeddings().weight:
            self.image_start_head = nn.Parameter(new_rows(head[: config.image_start_id].detach().float(), 1))
        size = 1.0 if embedding.is_meta else embedding.pow(2).mean().sqrt().item() * self.embedding_scale
        self.input_resampler = make_input_resampler(config, embedding.shape[1], size)
        self.output_resampler = make_output_resampler(config, embedding.shape[1])
        if config.lora_rank:
            self._add_lora()

    def _add_lora(self) -> None:
        config = self.config
        lora = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=config.lora_targets,
            task_type="CAUSAL_LM",
        )
        try:
            inject_adapter_in_model(lora, self.llm)
        except ValueError as error:
            raise ModelError(f"lora_targets {config.lora_targets!r:.80} do not fit the base LM: {error}") from None
        for part in (self.llm.get_input_embeddings(), self.llm.get_output_embeddings()):
            if isinstance(part, LoraLayer):
                raise ModelError("lora_targets must name layers of the blocks, neither the embeddings nor the head.")
        for layer in self._lora_layers():
            for part in (layer.lora_A, layer.lora_B):
                part.float()
            # Autocast casts once to bfloat16; peft would cast to float32 first, and autocast back.
            layer.cast_input_dtype_enabled = False
            add_in_product(layer)

    def _lora_layers(self) -> Iterator[LoraLayer]:
        return (module for module in self.llm.modules() if isinstance(module, LoraLayer))

    # ------------------------------------------------------------------------------------------------ the four steps

    def embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Input embeddings of base and added tokens: `[...]` → `[..., D]`."""
        first = self.config.image_start_id
        added = input_ids >= first
        embeds = self.llm.get_input_embeddings()(input_ids.masked_fill(added, 0))
        rows = functional.embedding((input_ids - first).clamp(min=0), self.token_rows).to(embeds.dtype)
        if self.embedding_scale != 1:
            rows = rows * rows.new_tensor(self.embedding_scale)
        return torch.where(added.unsqueeze(-1), rows, embeds)

    def embed_images(self, features: torch.Tensor) -> torch.Tensor:
        """Input embeddings of context pictures: `[P, F, Df]` → `[P, N, D]`."""
        return self.input_resampler(features).to(self.llm.dtype)

    def hidden_states(
        self,
        inputs_embeds: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        **attention_options: Any,
    ) -> torch.Tensor:
        """Last hidden states, after the final norm.

        Args:
            inputs_embeds: `[B, T, D]`.
            position_ids: `[B, T]`; continue the cache if None.
            attention_mask: True where a query sees a key, `[B, 1, T, keys]`; causal if None.
            cache: Keys and values of the tokens before; it grows by `T`.
            **attention_options: For the attention function.

        Returns:
            `[B, T, D]`.
        """
        masks: Any = layer_masks(self.windows, attention_mask, position_ids, cache, inputs_embeds)
        if masks is not None and self.llm.config._attn_implementation == "eager":
            # transformers adds the mask to the scores there, whatever its type.
            if isinstance(masks, dict):
                masks = {kind: _as_scores(mask, inputs_embeds.dtype) for kind, mask in masks.items()}
            else:
                masks = _as_scores(masks, inputs_embeds.dtype)
        return self.llm.base_model(
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            attention_mask=masks,
            past_key_values=cache,
            use_cache=cache is not None,
            **attention_options,
        ).last_hidden_state

    def caption_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token: `[..., D]` → `[..., V]`.

        `V = image_start_id + 1`: the base vocabulary and, last, `<img>`, so that a class is a token id. `</img>` and
        the query tokens are always forced, hence never scored.
        """
        row = self.token_rows[:1] if self.image_start_head is None else self.image_start_head
        base = self.llm.get_output_embeddings()(hidden)[..., : self.config.image_start_id]
        base = with_missing_scores(base, self.config.image_start_id)
        return torch.cat([base, functional.linear(hidden, row.to(hidden.dtype)).to(base.dtype)], dim=-1)

    def decode_features(self, hidden: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Features of pictures from the hidden states at their query tokens: `[P, N, D]` → `[P, F, Df]`, float32.

        A flow starts from `noise` `[P, F, Df]`, or from one noise for all pictures; a regression does without.
        """
        return self.output_resampler(hidden, noise)

    # ------------------------------------------------------------------------------------------------------ training

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        context_features: torch.Tensor | None = None,
        context_mask: torch.Tensor | None = None,
        query_mask: torch.Tensor | None = None,
        target_features: torch.Tensor | None = None,
        target_mask: torch.Tensor | None = None,
        feature_noise: torch.Tensor | None = None,
        feature_time: torch.Tensor | None = None,
        context_length: torch.Tensor | int | None = None,
        spans: torch.Tensor | Runs | None = None,
        places: Places | None = None,
    ) -> StoryModelOutput:
        """Losses of packed stories; `seedstory.layout.collate` makes all arguments but the features.

        Args:
            input_ids: `[B, T]`.
            position_ids: `[B, T]`.
            attention_mask: True where a row's token sees a column's, `[B, 1, T, T]`.
            labels: Id to predict *at* each position (already shifted) or -100, `[B, T]`.
            context_features: Features of the pictures that the story shows, `[P, F, Df]`.
            context_mask: Where their embeddings go, `P * N` times True, `[B, T]`.
            query_mask: Query tokens of the branches, `S * N` times True, `[B, T]`.
            target_features: Features that the branches shall regress or draw, `[P, F, Df]`.
            target_mask: Pages that have a branch, `S` times True, `[P]`.
            feature_noise: Where a flow starts, and what its loss adds to the targets, `[P, F, Df]`. If None, it starts
                as `decode_features` does, and the loss draws noise in training, and is always the same in evaluation.
            feature_time: At which times in (0, 1] its loss is taken, `[P]`; given with `feature_noise`.
            context_length: Tokens before the branches; lets CPUs leave out what nobody sees. The rows before it must
                be causal in `attention_mask`.
            spans: The same mask as causal runs of tokens, `[R, 4]`, or what `find_runs` makes of them; where
                `takes_runs`, GPUs use FlashAttention and need no `attention_mask`.
            places: What `find_places` finds in labels and masks; given, a GPU never has to be waited for.

        Returns:
            Losses in float32 and the predicted features. A loss whose targets are not given is None.

        Raises:
            ModelError: If the number of features does not fit the masks.
        """
        embeds, images = self.embed_tokens(input_ids), None
        places = places or find_places(labels, context_mask, query_mask, target_mask)
        if context_features is not None and places.context is not None:
            images = self.embed_images(context_features)
            if len(places.context) != images.shape[0] * images.shape[1]:
                raise ModelError(
                    f"context_features holds {images.shape[0]} pictures of {images.shape[1]} visual tokens, "
                    f"but context_mask has room for {len(places.context)} tokens."
                )
            embeds = _flat(embeds).index_copy(0, places.context, _flat(images).to(embeds.dtype)).view_as(embeds)
        elif places.context is not None and len(places.context):
            raise ModelError("context_mask marks pictures but context_features is missing.")
        options: dict[str, Any] = {}
        if spans is not None and self.takes_runs(embeds.device, _computed_in(embeds)):
            runs = spans if isinstance(spans, Runs) else find_runs(spans, embeds.shape[1])
            options = {"packed_runs": runs, "packed_windows": self.windows}
            attention_mask = embeds.new_ones(1, 1, 1, 1, dtype=torch.bool)  # or transformers would make one
        elif (
            attention_mask is not None
            and context_length is not None
            and embeds.device.type == "cpu"
            and self.llm.config._attn_implementation == PACKED_ATTENTION
        ):
            options["packed_context_length"] = int(context_length)
        hidden = self.hidden_states(embeds, position_ids, attention_mask, **options)
        output = StoryModelOutput(last_hidden_state=hidden, context_embeddings=images)
        losses = []
        if labels is not None and places.labels is not None:
            output.lm_loss = self._lm_loss(hidden, labels, places.labels)
            losses.append(self.config.lm_loss_weight * output.lm_loss)
        if places.queries is not None and len(places.queries):
            queries = _flat(hidden)[places.queries].unflatten(0, (-1, self.config.num_visual_tokens))
            output.codes = self.output_resampler.read(queries)
            gathered = self.output_resampler.gather(output.codes)
            noise, time, targets = (
                given if given is None or places.targets is None else given[places.targets]
                for given in (feature_noise, feature_time, target_features)
            )
            output.features = self.output_resampler.finish(gathered, noise)
            if targets is not None:
                self._visual_loss(output, targets)
                if isinstance(self.output_resampler, FlowResampler):
                    if noise is None or time is None:
                        noise, time = self.output_resampler.sample_noise(len(targets))
                    output.visual_loss = self.output_resampler.flow_loss(gathered, targets, noise, time)
                losses.append(self.config.visual_loss_weight * output.visual_loss)
        if losses:
            output.loss = torch.stack(losses).sum()
        return output

    def _lm_loss(self, hidden: torch.Tensor, labels: torch.Tensor, supervised: torch.Tensor) -> torch.Tensor:
        if not len(supervised):
            return hidden.new_zeros((), dtype=torch.float32)
        logits = self.caption_logits(_flat(hidden)[supervised])
        return functional.cross_entropy(logits.float(), labels.flatten()[supervised])

    def _visual_loss(self, output: StoryModelOutput, targets: torch.Tensor) -> None:
        assert output.features is not None
        if targets.shape != output.features.shape:
            raise ModelError(
                f"target_features gives {tuple(targets.shape)} after target_mask, "
                f"but the branches predict {tuple(output.features.shape)}."
            )
        predicted, targets = output.features.float(), targets.float()
        output.cosine_loss = (1 - functional.cosine_similarity(predicted, targets, dim=-1)).mean()
        output.mse_loss = functional.mse_loss(predicted, targets)
        config = self.config
        output.visual_loss = config.cosine_weight * output.cosine_loss + config.mse_weight * output.mse_loss

    # ------------------------------------------------------------------------------------------------ build and store

    @classmethod
    def from_base(
        cls,
        base_lm: str | Path | PreTrainedModel = "smollm2-135m-instruct",
        *,
        tokenizer: Any = None,
        dtype: torch.dtype = torch.bfloat16,
        **settings: Any,
    ) -> "StoryModel":
        """A fresh model on a base language model, ready to be trained.

        Args:
            base_lm: Name, folder or Hub id (see `base_lm_folder`), or a loaded causal language model.
            tokenizer: The base model's tokenizer; read from the folder if None. The image tokens are added to it.
            dtype: Type of the frozen base weights. What is trained is float32.
            **settings: `StoryConfig` settings.

        Returns:
            The model in training mode, with `layout`.

        Raises:
            ModelError: If the base model is not found or not supported, or a setting is wrong.
        """
        llm, folder = _load_base(base_lm, dtype)
        if tokenizer is None:
            if folder is None:
                raise ModelError("Pass the tokenizer along with a loaded base model.")
            tokenizer = load_tokenizer(folder)
        layout_settings = (settings.get(name, getattr(StoryConfig, name)) for name in ("num_visual_tokens", "layout"))
        layout = StoryLayout.extend(tokenizer, *layout_settings)
        check_tokenizer(layout, llm.config.vocab_size)
        name = llm.config.name_or_path if folder is None else str(base_lm)
        if Path(name).is_dir():  # a relative path would start at the folder that this model is saved to
            name = str(Path(name).absolute())
        base_config = {key: value for key, value in llm.config.to_dict().items() if key != "_name_or_path"}
        config = StoryConfig(base_lm=name, base_lm_config=base_config, image_start_id=layout.image_start_id, **settings)
        model = cls(config, llm)
        model.layout = layout
        return model.train()

    def save_pretrained(
        self, save_directory: str | Path, *, dtype: torch.dtype | None = None, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Write `config.json`, the tokenizer and one safetensors file with the trained weights alone.

        LoRA that was merged into the base weights is written apart, as it was before.

        Args:
            save_directory: Folder; made if missing.
            dtype: Type of the stored weights; as they are if None.
            push_to_hub: Also push the folder to the Hugging Face Hub.
            **kwargs: For the push, as in transformers.

        Raises:
            ModelError: If LoRA was merged by other means than `merge_lora`.
        """
        if self.config.lora_rank and not self.has_lora and not self.merged_lora:
            raise ModelError("LoRA was merged into this model and its factors are gone: load it again to save it.")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.architectures = [type(self).__name__]
        self.config.save_pretrained(folder)
        if self.layout is not None:
            self.layout.tokenizer.save_pretrained(folder)
        write_trained(self, folder, dtype)
        if push_to_hub:
            kwargs.setdefault("repo_id", folder.name)
            self.push_to_hub(**kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        base_model: str | Path | PreTrainedModel | None = None,
        dtype: torch.dtype = torch.bfloat16,
        merge: bool = True,
        quantization: str = "",
        device: str | torch.device = "cpu",
    ) -> "StoryModel":
        """Load the base language model and our weights on top.

        A checkpoint without tokenizer files takes the base model's tokenizer and adds the image tokens to it.

        Args:
            pretrained_model_name_or_path: Folder written by `save_pretrained`, or a Hub id.
            base_model: Where the base model is; by default what the configuration names.
            dtype: Type of the base weights, and of all weights if merged. Otherwise ours stay float32.
            merge: Merge LoRA into the base weights, for inference. False keeps it apart, for training.
            quantization: "int8" or "int4" stores the language model's merged matrices in fewer bits, one by one as
                they are read.
            device: Where the model is put.

        Returns:
            The model, in evaluation mode if merged, with `layout`.

        Raises:
            ModelError: If the checkpoint has missing, unknown or wrongly shaped weights, or does not fit the base; or
                LoRA is kept apart from weights that shall be stored in fewer bits.
        """
        check_quantization(quantization)
        if quantization and not merge:
            raise ModelError(
                f"{quantization} weights are for inference: merge LoRA into them (merge=True), or leave it out."
            )
        folder = resolve_checkpoint(pretrained_model_name_or_path)
        check_files(folder)
        config, shapes = StoryConfig.of_folder(folder), stored_shapes(folder)
        base_folder: Path | None = None
        if isinstance(base_model, PreTrainedModel):
            found = base_model.config
        else:
            base_folder = resolve_base_lm(folder) if base_model is None else base_lm_folder(base_model)
            found = base_lm_config(base_folder)
            config.base_lm = base_lm_name(folder)  # a relative path means nothing elsewhere
        expected = config.language_config()
        for key in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
            if getattr(expected, key) != getattr(found, key):
                raise ModelError(
                    f"The checkpoint was trained on a base LM with {key}={getattr(expected, key)}, "
                    f"but this one has {getattr(found, key)}. Pass the right base_model."
                )
        cls._check_trained(config, shapes, folder)
        if quantization and base_folder is not None:
            model = cls._load_quantized(config, folder, base_folder, dtype, quantization)
        else:
            model = cls(config, base_model if base_folder is None else load_base_lm(base_folder, dtype))
            read_trained(model, folder)
        own_tokenizer = (folder / "tokenizer_config.json").is_file()
        tokenizer = load_tokenizer(folder if own_tokenizer or base_folder is None else base_folder)
        model.layout = StoryLayout.extend(tokenizer, config.num_visual_tokens, config.layout)
        if model.layout.image_start_id != config.image_start_id:
            raise ModelError("The checkpoint's tokenizer and configuration disagree about the id of <img>.")
        check_tokenizer(model.layout, found.vocab_size)
        if merge:
            model.merge_lora().to(dtype).eval().requires_grad_(False)
        if quantization:
            model.quantize(quantization)
        return model.to(device)

    @classmethod
    def _load_quantized(
        cls, config: StoryConfig, folder: Path, base_folder: Path, dtype: torch.dtype, quantization: str
    ) -> "StoryModel":
        """A model whose base language model is stored in fewer bits, but for its head, with LoRA merged into it."""
        factors = read_lora(folder)
        scale = config.lora_alpha / max(1, config.lora_rank)

        def merge(name: str, weight: torch.Tensor) -> torch.Tensor:
            down, up = (factors.get(f"llm.{name.removesuffix('.weight')}.lora_{side}.weight") for side in "AB")
            if down is None or up is None:
                return weight
            return (weight.float() + scale * (up @ down)).to(weight.dtype)

        plain = copy(config)
        plain.lora_rank = 0
        model = cls(plain, load_quantized(base_folder, dtype, quantization, merge))
        read_trained(model, folder, lora=False)
        model.config.lora_rank = config.lora_rank
        model.merged_lora = factors
        return model

    @classmethod
    def lay_out(cls, folder: Path, *, dtype: torch.dtype = torch.bfloat16, quantization: str = "") -> "StoryModel":
        """What `from_pretrained` loads with LoRA merged, without memory for its weights: on torch's meta device.

        Raises:
            ModelError: As `from_pretrained`.
        """
        check_quantization(quantization)
        check_files(folder)
        config, base_folder = StoryConfig.of_folder(folder), resolve_base_lm(folder)
        base_lm_config(base_folder)
        cls._check_trained(config, stored_shapes(folder), folder)
        config.base_lm, config.lora_rank = base_lm_name(folder), 0
        with torch.device("meta"):
            llm = AutoModelForCausalLM.from_config(config.language_config(), trust_remote_code=False)
            model = cls(config, llm).to(dtype).eval().requires_grad_(False)
            if quantization:
                model.quantize(quantization)
        own_tokenizer = (folder / "tokenizer_config.json").is_file()
        tokenizer = load_tokenizer(folder if own_tokenizer else base_folder)
        model.layout = StoryLayout.extend(tokenizer, config.num_visual_tokens, config.layout)
        return model

    @classmethod
    def _check_trained(cls, config: StoryConfig, stored: dict[str, tuple[int, ...]], folder: Path) -> None:
        """Holds the stored weights against those of a model that takes no memory."""
        own = {key: value for key, value in config.to_dict().items() if key != "base_lm_config"}
        check_counts(own, len(stored), folder / "config.json")

        def build() -> StoryModel:
            with torch.device("meta"):
                return cls(config, AutoModelForCausalLM.from_config(config.language_config(), trust_remote_code=False))

        skeleton = described(build, folder / "config.json", cls.__name__)
        check_shapes({name: tuple(t.shape) for name, t in trained_state(skeleton).items()}, stored, folder)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "StoryModel":
        """Changes device and type of all weights; rotary frequencies keep theirs, or distant tokens lose their place.

        In bfloat16 a frequency is wrong by up to a 256th: at a distance of 1,000 tokens, by more than a radian.
        """
        rotary = [
            (module, name, buffer)
            for module in self.llm.modules()
            for name, buffer in module._buffers.items()
            if name.endswith("inv_freq") and buffer is not None
        ]
        super()._apply(fn, recurse)
        for module, name, exact in rotary:
            changed = module._buffers[name]
            if changed is not None and changed.dtype != exact.dtype:
                module._buffers[name] = exact.to(changed.device)
        return self

    def merge_lora(self) -> "StoryModel":
        """Add LoRA to the base weights (in float32, rounded once), for inference.

        Its factors stay in CPU memory, so that `save_pretrained` can write them apart again.
        """
        factors = {name: tensor for name, tensor in trained_state(self).items() if name.startswith("llm.")}
        self.merged_lora = self.merged_lora | {name: tensor.detach().cpu().clone() for name, tensor in factors.items()}
        merge_lora(self.llm)
        return self

    def quantize(self, quantization: str) -> "StoryModel":
        """Store the language model's linear layers in fewer bits, for inference.

        Args:
            quantization: "int8" or "int4", see `seedstory.modeling.int8` and `seedstory.modeling.int4`.

        Raises:
            ModelError: If LoRA is not merged.
        """
        check_quantization(quantization)
        if self.has_lora:
            raise ModelError("Merge LoRA before storing the weights in fewer bits: call merge_lora() first.")
        quantize(self.llm, quantization)
        return self

    def takes_runs(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether packed stories are attended as runs of tokens where and in what type they are computed."""
        config = self.llm.config
        if config._attn_implementation != PACKED_ATTENTION:
            return False
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        dropout = float(getattr(config, "attention_dropout", 0.0) or 0.0)
        return kernel_of(device, dtype, width, dropout) is not None

    def keep_embedding_on_host(self) -> "StoryModel":
        """Leave the token embeddings in main memory wherever the model goes, unless the head shares them."""
        embedding = self.llm.get_input_embeddings()
        if type(embedding) is nn.Embedding and not self.has_tied_head:
            self.llm.set_input_embeddings(HostEmbedding(embedding))
        return self

    @property
    def has_tied_head(self) -> bool:
        """Whether the head reads the same weights as the token embeddings."""
        return getattr(self.llm.get_output_embeddings(), "weight", None) is self.llm.get_input_embeddings().weight

    @property
    def has_windows(self) -> bool:
        """Whether layers of the language model see a sliding window only."""
        return any(window is not None for window in self.windows)

    @property
    def has_lora(self) -> bool:
        """Whether LoRA stands apart from the base weights."""
        return any(True for _ in self._lora_layers())

    @property
    def quantization(self) -> str:
        """In which form the language model's matrices are stored: "int8", "int4", or "" for floats."""
        return quantization_of(self.llm)


def _flat(rows: torch.Tensor) -> torch.Tensor:
    """All rows one after another: `[B, T, D]` → `[B * T, D]`."""
    return rows.flatten(0, 1)


def _computed_in(embeds: torch.Tensor) -> torch.dtype:
    """The type of products of these embeddings, with mixed precision as it is here."""
    kind = embeds.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else embeds.dtype


def _as_scores(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask as what is added to the scores: 0 where it is True, the lowest number elsewhere."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _load_base(base_lm: str | Path | PreTrainedModel, dtype: torch.dtype) -> tuple[PreTrainedModel, Path | None]:
    if isinstance(base_lm, PreTrainedModel):
        check_base_lm(base_lm.config)
        return base_lm, None
    folder = base_lm_folder(base_lm)
    return load_base_lm(folder, dtype), folder


AutoModel.register(StoryConfig, StoryModel)
