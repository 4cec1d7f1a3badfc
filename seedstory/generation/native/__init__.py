"""Caption decoding in C: one call reads a token through all layers (see `decode.c`).

Shape legend: `R` stories that take part, `D` hidden width, `V` vocabulary of captions.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from seedstory.cache import CachePolicy, KeyRotation, StoryCache
from seedstory.errors import ModelError
from seedstory.generation.native.build import BuildError, library
from seedstory.modeling import StoryModel
from seedstory.modeling.int8 import Int8Linear
from seedstory.modeling.token_rows import NEVER

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
_PARTS = {0: 1, 1: 2, 2: 4}  # numbers in a word of 32 bits
_KNOWN: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_ROUNDED: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # a layer's matrix in the type that decoding reads

_pointer, _integer, _double = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


def _struct(name: str, **fields: Any) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


_Matrix = _struct("Matrix", data=_pointer, scale=_pointer, bias=_pointer, rows=_integer, cols=_integer, type=_integer)
_MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_NORMS = ("attention_norm", "mlp_norm", "query_norm", "key_norm")
_Layer = _struct(
    "Layer",
    **dict.fromkeys(_MATRICES, _Matrix),
    **dict.fromkeys(_NORMS, _pointer),
    rotary=_integer,
    window=_integer,
)
_ALL_TOKENS = 2**62
_SIZES = ("num_layers", "hidden", "heads", "key_heads", "head_dim", "rotary", "intermediate")
_Model = _struct(
    "Model",
    layers=_pointer,
    final_norm=_pointer,
    head=_Matrix,
    frequencies=_pointer,
    **dict.fromkeys(_SIZES, _integer),
    **dict.fromkeys(("epsilon", "scaling", "rotary_scaling"), _double),
)
_Cache = _struct("Cache", keys=_pointer, values=_pointer, capacity=_integer, type=_integer)


class NativeUnsupportedError(Exception):
    """Why a language model cannot be decoded in C."""


class NativeStep:
    """Reads one token of some stories with the C code; weights and cache are used where they lie.

    Use `of`, which checks that the model fits.

    Args:
        model: The story model, LoRA merged, on the CPU.

    Raises:
        NativeUnsupportedError: If a part of the model has no counterpart in the C code.
        BuildError: If there is no compiled code.
    """

    static = False

    def __init__(self, model: StoryModel) -> None:
        self.model, self._code = model, library()
        self._alive: list[Any] = []  # what the C code points to
        if model.device.type != "cpu":
            raise NativeUnsupportedError("the model is not on the CPU")
        llm, config = model.llm, model.llm.config
        decoder = llm.base_model
        if model.has_lora:
            raise NativeUnsupportedError("LoRA is not merged")
        if not len(getattr(decoder, "layers", ())):
            raise NativeUnsupportedError("it is built differently: it has no layers")
        if llm.dtype not in (torch.float32, torch.bfloat16):
            raise NativeUnsupportedError(f"its weights are {llm.dtype}")
        if hasattr(decoder.layers[0], "pre_feedforward_layernorm"):
            raise NativeUnsupportedError("its layers have norms behind attention and MLP, too, as Gemma's have")
        try:
            frequencies = decoder.rotary_emb.inv_freq.double().cpu()
            self._alive.append(frequencies)
            rotations = [2 * len(rotation.inverse_frequencies) for rotation in KeyRotation.of_layers(llm)]
            parts = zip(decoder.layers, rotations, model.windows, strict=True)
            layers = (_Layer * len(decoder.layers))(*(self._layer(*part) for part in parts))
            self._alive.append(layers)
            attention = decoder.layers[0].self_attn
            self._vocabulary = model.config.image_start_id
            head = self._matrix(llm.get_output_embeddings())
            head.rows = min(head.rows, self._vocabulary)  # the tokenizer may have tokens that have no row
            self._model = _Model(
                layers=ctypes.addressof(layers),
                final_norm=self._norm(decoder.norm),
                head=head,
                frequencies=frequencies.data_ptr(),
                num_layers=len(layers),
                hidden=config.hidden_size,
                heads=config.num_attention_heads,
                key_heads=config.num_key_value_heads,
                head_dim=attention.head_dim,
                rotary=2 * len(frequencies),
                intermediate=layers[0].gate_proj.rows,
                epsilon=_epsilon(decoder.norm),
                scaling=attention.scaling,
                rotary_scaling=getattr(decoder.rotary_emb, "attention_scaling", 1.0),
            )
        except AttributeError as error:
            raise NativeUnsupportedError(f"it is built differently: {error}") from None
        except ModelError as error:
            raise NativeUnsupportedError(str(error)) from None
        if self._model.head_dim % 2 or self._model.rotary > self._model.head_dim:
            raise NativeUnsupportedError(f"its heads are {self._model.head_dim} wide")
        self._code.decode_scratch.restype = _integer
        self._code.decode_scratch.argtypes = [_pointer, _integer, _integer, _integer]
        self._code.decode.restype = None
        self._code.decode.argtypes = [_pointer, _pointer, _integer, *[_pointer] * 5, _integer, _pointer, _integer]
        self._scratch = torch.empty(0)
        row = model.token_rows[:1] if model.image_start_head is None else model.image_start_head
        self._image_start = row.detach().float()

    @classmethod
    def of(cls, model: StoryModel) -> "NativeStep":
        """The step of a model, tried out against the model's own layers once.

        Raises:
            NativeUnsupportedError: If its numbers differ from theirs.
            BuildError: If there is no compiled code.
        """
        step = cls(model)
        step._verify(model.llm)
        return step

    def __call__(self, cache: StoryCache, tokens: Sequence[int], rows: Sequence[int]) -> torch.Tensor:
        """Scores of the tokens after, `[R, V]`, as `decoding.Step`."""
        hidden = self.model.embed_tokens(torch.tensor(list(tokens))).float()
        logits = self.read(cache, hidden, rows)
        cache.advance([int(row in rows) for row in range(len(cache.rows))])
        logits[:, -1:] = hidden @ self._image_start.T
        return logits

    def read(self, cache: StoryCache, hidden: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """One token of some stories; the cache holds its keys and values, but does not count them yet.

        Args:
            cache: Holds a token at least.
            hidden: Embeddings, float32, `[R, D]`; hidden states after the final norm take their place.
            rows: The stories.

        Returns:
            Scores of the base vocabulary, and room for that of `<img>`, `[R, V]`.
        """
        cache.reserve(1)
        first = cache.layers[0]
        keys = (_pointer * len(cache.layers))(*[layer.keys.data_ptr() for layer in cache.layers])
        values = (_pointer * len(cache.layers))(*[layer.values.data_ptr() for layer in cache.layers])
        capacity, threads, size = first.keys.shape[-2], torch.get_num_threads(), len(rows)
        num_kept = _Cache(ctypes.addressof(keys), ctypes.addressof(values), capacity, _TYPES[first.dtype])
        needed = self._code.decode_scratch(ctypes.byref(self._model), size, capacity, threads)
        if len(self._scratch) < needed:
            self._scratch = torch.empty(needed)
        logits = torch.empty(size, self._vocabulary + 1)
        logits[:, self._model.head.rows :] = NEVER
        books = torch.tensor([[row, cache.rows[row].length, cache.rows[row].position] for row in rows]).T.contiguous()
        self._code.decode(
            ctypes.byref(self._model),
            ctypes.byref(num_kept),
            size,
            *(part.data_ptr() for part in books),
            hidden.data_ptr(),
            logits.data_ptr(),
            logits.shape[1],
            self._scratch.data_ptr(),
            threads,
        )
        return logits

    def _layer(self, layer: nn.Module, rotary: int, window: int | None) -> ctypes.Structure:
        attention, mlp = layer.self_attn, layer.mlp
        modules = [getattr(attention if name in _MATRICES[:4] else mlp, name) for name in _MATRICES]
        norms: list[Any] = [layer.input_layernorm, layer.post_attention_layernorm]
        norms += [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        return _Layer(*map(self._matrix, modules), *map(self._norm, norms), rotary, window or _ALL_TOKENS)

    def _matrix(self, module: nn.Module) -> ctypes.Structure:
        if not isinstance(module, nn.Linear | Int8Linear):
            raise NativeUnsupportedError(f"it has a {type(module).__name__} where a linear layer is expected")
        weight = self._stored(module)
        kind = _TYPES[weight.dtype]
        if not weight.is_contiguous() or weight.shape[1] % _PARTS[kind]:
            raise NativeUnsupportedError(f"a weight of shape {tuple(weight.shape)} is not laid out in words")
        scale = self._floats(module.scale) if isinstance(module, Int8Linear) else None
        self._alive.append(weight)
        bias = None if module.bias is None else self._floats(module.bias)
        return _Matrix(weight.data_ptr(), scale, bias, *weight.shape, kind)

    def _stored(self, module: nn.Linear | Int8Linear) -> torch.Tensor:
        weight, wanted = module.weight.detach(), self.model.decode_dtype
        if wanted is None or weight.dtype in (wanted, torch.int8):
            return weight
        state = (weight.data_ptr(), module.weight._version, wanted)
        if module not in _ROUNDED or _ROUNDED[module][0] != state:
            _ROUNDED[module] = (state, weight.to(wanted))
        return _ROUNDED[module][1]

    def _norm(self, module: nn.Module | None) -> int | None:
        return None if module is None else self._floats(cast(torch.Tensor, module.weight))

    def _floats(self, tensor: torch.Tensor) -> int:
        copy = tensor.detach().float().contiguous().clone()
        self._alive.append(copy)
        return copy.data_ptr()

    @torch.inference_mode()
    def _verify(self, llm: PreTrainedModel) -> None:
        # Embeddings of three tokens give every part of the C code something to do.
        embeds = self.model.embed_tokens(torch.arange(3)[None] % self._vocabulary)
        expected = llm.base_model(inputs_embeds=embeds, past_key_values=DynamicCache(), use_cache=True)
        cache = StoryCache(llm, CachePolicy(name="dense"))
        self.model.hidden_states(embeds[:, :2], cache.position_ids(2), cache.causal_mask(2), cache)
        hidden = embeds[0, 2:].float()
        self.read(cache, hidden, [0])
        wanted = expected.last_hidden_state[0, 2:].float()
        tolerance = 1e-4 if (self.model.decode_dtype or llm.dtype) == torch.float32 else 0.1
        if not (hidden - wanted).norm() < tolerance * wanted.norm():
            raise NativeUnsupportedError("its layers compute something else than those of Llama")


def _epsilon(norm: nn.Module) -> float:
    return float(getattr(norm, "variance_epsilon", None) or norm.eps)  # type: ignore[arg-type]


def native_unsupported_reason(model: StoryModel) -> str:
    """Why captions of this model cannot be decoded in C here; empty if they can."""
    state = (model.device, model.llm.dtype, model.has_lora, model.quantization, model.decode_dtype)
    known = _KNOWN.get(model)
    if known is None or known[0] != state:
        try:
            NativeStep.of(model)
            reason = ""
        except (NativeUnsupportedError, BuildError) as error:
            reason = str(error)
        known = _KNOWN[model] = (state, reason)
    return known[1]
