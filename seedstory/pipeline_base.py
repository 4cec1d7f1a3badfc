"""A model in memory: its components, where they are, and the folder or Hub repository that they come from and go to."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from seedstory import __version__
from seedstory.errors import ModelError, RequestError, raised_as
from seedstory.hub import model_card, push_folder
from seedstory.identity import NO_IDENTITY, ModelIdentity, fingerprint
from seedstory.io import read_json, write_atomic
from seedstory.memory.choose import MemoryPlan, asked_plan
from seedstory.memory.machine import release_free_memory
from seedstory.memory.modes import check_memory
from seedstory.memory.networks import Networks
from seedstory.memory.phases import NetworkPhases
from seedstory.model_credits import read_credits, write_credits
from seedstory.model_folder import COMPONENTS, find_model
from seedstory.salience import Salience, by_capitals
from seedstory.settings import check_decoding

if TYPE_CHECKING:
    import torch

    from seedstory.detokenizers.detokenizer import Detokenizer
    from seedstory.modeling.story_model import StoryModel
    from seedstory.modeling.vision_tower import AnyTower

logger = logging.getLogger(__name__)


class PipelineBase:
    """What a pipeline has beside its call: components, devices, files. `StoryPipeline` documents the arguments."""

    def __init__(
        self,
        story_model: StoryModel,
        vision_tower: AnyTower,
        detokenizer: Detokenizer,
        *,
        identity: ModelIdentity = NO_IDENTITY,
        source: Path | None = None,
        decoding: str = "auto",
        salience: Salience = by_capitals,
    ) -> None:
        self._story_model: StoryModel | None = story_model
        self._freed: tuple[dict[str, Any], torch.dtype | None] | None = None  # how a freed one is loaded again
        self._offload_device: torch.device | None = None
        self._phases: NetworkPhases | None = None
        self.memory_plan: MemoryPlan | None = None
        self._progress_bar_config: dict[str, Any] = {}
        self.vision_tower = vision_tower
        self.detokenizer = detokenizer
        self._identity = identity
        self._base_fingerprint = ""
        self.source = source
        self.decoding = decoding
        self.salience = salience

    # ------------------------------------------------------------------------------------------------ load and store

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path = "mini",
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        device_map: str | Mapping[str, str | torch.device] | None = None,
        int8: bool = False,
        quantization: str = "",
        decoding: str = "auto",
        salience: Salience = by_capitals,
        story_dtype: str = "",
        memory: str = "",
    ) -> Self:
        """Loads a model.

        Args:
            pretrained_model_name_or_path: "mini" for the embedded model; a folder with `model_index.json`,
                `story_model/`, `vision_tower/` and `detokenizer/`; or a Hub id such as `owner/model`.
            revision: Branch, tag or commit on the Hub.
            token: Access token of the Hub; by default the stored one.
            cache_dir: Where downloads are kept.
            local_files_only: Never ask the Hub.
            dtype: Type of all weights; by default float32 for the image networks and, for the language model, the
                type that the device multiplies fastest (`seedstory.precision`). Captions are decoded from bfloat16
                weights in either case, since memory is their bound.
            torch_dtype: The same under its older name.
            device: Where the model runs; by default a GPU if there is one.
            device_map: A device, "auto" (as by default) or a device for each component, such as
                `{"story_model": "cuda:0", "detokenizer": "cuda:1"}`; components that it leaves out go to `device`.
            int8: The same as `quantization="int8"`.
            quantization: "int8" or "int4" stores the language model's weights in eight or four bits: less memory,
                slightly rounded. On CPUs eight bits make words faster, four bits slower.
            decoding: As in the class.
            salience: As in the class.
            story_dtype: The `dtype` recorded in a story to be resumed, perhaps on another kind of machine; the
                language model is then loaded in it.
            memory: One of `seedstory.memory.modes.MEMORY_MODES`: "auto" takes the best way to hold the model that fits
                the memory that is free; a name takes that one. By default everything stays on the device. With
                "offload" and "phases" a story is written before its first page is drawn.

        Raises:
            ModelError: There is no such model, its folder is incomplete or damaged, or `memory="auto"` finds no way to
                hold it here.
            RequestError: There is no such type, decoding, device or memory mode, or they do not agree.
        """
        check_decoding(decoding)
        check_memory(memory)
        folder = find_model(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        import torch

        from seedstory.modeling.base_lm import model_identity, resolve_base_lm
        from seedstory.precision import fast_dtype

        devices = _devices(device, device_map)
        dtype = dtype or torch_dtype
        image_dtype = dtype or torch.float32
        language_device = devices["story_model"]
        language_dtype, decode_dtype = dtype or fast_dtype(language_device), None if dtype else torch.bfloat16
        if story_dtype and dtype is None:
            language_dtype, decode_dtype = _recorded_types(story_dtype)
        quantization = quantization or ("int8" if int8 else "")
        plan = None
        if memory:
            if len({str(one) for one in devices.values()}) > 1:
                raise RequestError("memory modes put all components on one device: leave device_map out")
            fixed = quantization if quantization or story_dtype else None
            plan = asked_plan(
                folder, memory, torch.device(language_device), fixed, dtype=language_dtype, image_dtype=dtype
            )
            quantization = plan.mode.quantization
            image_dtype = dtype or (language_dtype if plan.mode.half else torch.float32)
        with raised_as(ModelError):
            networks = Networks(folder, language_dtype, decode_dtype, quantization, image_dtype, devices, plan)
            pipeline = cls(
                **networks.made(),
                identity=model_identity(folder, name=str(pretrained_model_name_or_path)),
                source=folder,
                decoding=decoding,
                salience=salience,
            )
            pipeline._base_fingerprint = fingerprint(resolve_base_lm(folder / "story_model"))
        pipeline.memory_plan, pipeline._phases = plan, networks.phases
        if plan is not None and plan.mode.placement == "offload":
            pipeline._offload_device = torch.device(language_device)
        logger.info(
            "loaded %s (%s) in %s on %s",
            pretrained_model_name_or_path,
            pipeline.identity.fingerprint[:12],
            pipeline.identity.dtype,
            language_device,
        )
        return pipeline

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes what is in memory as the folder that `from_pretrained` reads; `model_index.json` comes last.

        The base language model is not written: the folder names it. LoRA that was merged for inference is written
        apart again, as it was loaded.

        Args:
            save_directory: A new folder, or one that holds a model to be replaced, this pipeline's own included.

        Raises:
            ModelError: The base language model has changed since it was loaded, so its name no longer means these
                weights; or LoRA was merged by other means than ours.
        """
        folder = Path(save_directory)
        base_lm = self._check_base_lm()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as scratch:
            for name in COMPONENTS:
                if self._phases is not None:
                    self._activate(name)
                self.components[name].save_pretrained(Path(scratch) / name)
            for config in Path(scratch).rglob("config.json"):  # diffusers notes where a network was loaded from
                _write_config(
                    config, {key: value for key, value in read_json(config).items() if key != "_name_or_path"}
                )
            for name in COMPONENTS:
                _replace_files(Path(scratch) / name, folder / name)
            drawn_with = {path.name for path in (Path(scratch) / "detokenizer").iterdir()} & {"unet", "transformer"}
            for other in {"unet", "transformer"} - drawn_with if drawn_with else ():
                shutil.rmtree(folder / "detokenizer" / other, ignore_errors=True)  # an older de-tokenizer's network
        if self.source is not None and folder.resolve() != self.source.resolve():
            write_credits(folder, read_credits(self.source))
        self.write_index(folder)
        if self.source is not None and folder.resolve() == self.source.resolve():
            self._identity = ModelIdentity.of_folders(folder, base_lm, name=self._identity.name)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        base_lm: str | None = None,
        commit_message: str = "Upload a seedstory model",
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Uploads what is in memory to the Hugging Face Hub, with a generated model card.

        A base language model that lies in the folder that was loaded, as in converted models, goes along. What
        `credits.json` there says of license and makers goes into the card.

        Args:
            repo_id: `owner/model`; made where it is missing.
            base_lm: Name or Hub id of the base language model, if it was loaded from a local folder, which means
                nothing elsewhere.
            commit_message: Of the upload.
            private: Whether a new repository is private.
            token: Access token; by default the stored one.
            revision: Branch to push to.
            create_pr: Open a pull request instead.

        Returns:
            The address of the commit.

        Raises:
            ModelError: The base language model has no name that means something elsewhere, the Hub refused the model,
                or it cannot be reached.
        """
        name = base_lm or self.story_model.config.base_lm
        own = None
        if base_lm is None and self.source is not None and Path(name).is_absolute():
            own = _inside(Path(name), self.source / "story_model")
        if Path(name).is_absolute() and own is None:
            raise ModelError(
                f"the base language model is the local folder {name}, which nobody else has: give base_lm, its Hub id"
            )
        with tempfile.TemporaryDirectory() as scratch:
            self.save_pretrained(scratch)
            config = Path(scratch) / "story_model" / "config.json"
            _write_config(config, read_json(config) | {"base_lm": "base_lm" if own else name})
            if own is not None:
                _link_files(own, Path(scratch) / "story_model" / "base_lm")
            card = self._model_card(repo_id, Path(scratch), "" if own else name)
            write_atomic(Path(scratch) / "README.md", card)
            return push_folder(
                Path(scratch),
                repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )

    def _model_card(self, name: str, folder: Path, base_lm: str) -> str:
        """The README.md of this model as it was written to a folder."""
        config = self.story_model.config
        count = sum(weight.numel() for part in self.components.values() for weight in _parameters(part))
        facts = {
            "base language model": f"{base_lm or 'in this repository'} ({config.base_lm_config.get('model_type', '')})",
            "visual tokens per image": str(config.num_visual_tokens),
            "image features": "{} x {}".format(*self.feature_shape),
            "image size": f"{self.image_size} px",
            "de-tokenizer": self.detokenizer.form,
            "parameters, base included": f"{count / 1e6:.0f} M",
            "written by": f"seedstory {__version__}",
        }
        files = ModelIdentity.of_folders(folder, None).files
        return model_card(name, base_lm, facts, files, read_credits(folder))

    @classmethod
    def write_index(cls, folder: Path) -> None:
        """Writes the `model_index.json` that makes a folder of components a model."""
        index: dict[str, Any] = {"_class_name": "StoryPipeline", "_seedstory_version": __version__}
        index |= {part: ["seedstory", kind] for part, kind in COMPONENTS.items()}
        write_atomic(folder / "model_index.json", json.dumps(index, indent=2) + "\n")

    # ------------------------------------------------------------------------------------------- devices and progress

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name, as the constructor takes them."""
        return {name: getattr(self, name) for name in COMPONENTS}

    def to(self, device: str | torch.device) -> Self:
        """Moves all components to a device.

        Raises:
            RequestError: They are read from disk when they work (memory "phases").
        """
        if self._phases is not None:
            raise RequestError("this pipeline reads its networks from disk when they work: load it without 'phases'")
        for component in self.components.values():
            component.to(device)
        self._offload_device = None
        return self

    def enable_model_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Keeps all components in CPU memory and moves each to `device` only while it works.

        Least is moved with `rendering="after"`; "ahead" needs both networks at once and is then refused.
        """
        import torch

        self.to("cpu")
        self._offload_device = torch.device(device)

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Options of the `tqdm` bar that a call shows over pages, such as `disable=True`."""
        self._progress_bar_config = kwargs

    @property
    def story_model(self) -> StoryModel:
        """The language model; loaded again from `source` if it was freed."""
        if self._story_model is None:
            from seedstory.modeling.story_model import StoryModel

            assert self.source is not None and self._freed is not None, "only what can be loaded again is freed"
            self._check_source(self.source)
            options, decode_dtype = self._freed
            self._story_model = StoryModel.from_pretrained(self.source / "story_model", **options)
            self._story_model.decode_dtype = decode_dtype
        return self._story_model

    def free_story_model(self) -> None:
        """Frees the memory of the language model. It is loaded again when it is next needed.

        Raises:
            ModelError: There is no folder to load it from again.
        """
        if self.source is None:
            raise ModelError("this pipeline was not loaded from a folder: a freed language model could not come back")
        if self._phases is not None:
            self._activate("")
        if self._story_model is None or self._phases is not None:
            return
        import torch

        self._identity = replace(self._identity, dtype=_type_record(self._story_model))
        self._freed = (
            {name: getattr(self._story_model, name) for name in ("dtype", "quantization", "device")},
            self._story_model.decode_dtype,
        )
        self._story_model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        release_free_memory()

    @property
    def identity(self) -> ModelIdentity:
        """Which weights these are, and in which types; LoRA of the de-tokenizer count as weights."""
        identity = self._identity
        if self._story_model is not None:
            identity = replace(identity, dtype=_type_record(self._story_model))
        loras = {name: (one.lora.sha256, one.scale) for name, one in self.detokenizer.loras.items()}
        return identity.with_loras(loras) if loras else identity

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Feature tokens of an image and their width, `(F, Df)`."""
        config = self.detokenizer.adapter.config
        return config.num_features, config.feature_dim

    @property
    def device(self) -> torch.device:
        """Where the model works."""
        if self._phases is not None:
            return self._phases.device
        return self._offload_device or self.detokenizer.device

    @property
    def reads_in_phases(self) -> bool:
        """Whether each network is read from disk when it works, and then alone in memory."""
        return self._phases is not None

    @property
    def image_size(self) -> int:
        """Side of the images in px."""
        return self.detokenizer.image_size

    def _check_base_lm(self) -> Path | None:
        """The folder of the base language model, which must be what was loaded; None for a model built in memory."""
        from seedstory.modeling.base_lm import resolve_base_lm

        if self.source is None:
            return None
        folder = resolve_base_lm(self.source / "story_model")
        if fingerprint(folder) != self._base_fingerprint:
            raise ModelError(f"{folder} has changed since this model was loaded with it: load it again")
        return folder

    def _check_source(self, source: Path) -> None:
        """What was loaded must still lie there before it is loaded again."""
        from seedstory.modeling.base_lm import model_identity

        found = model_identity(source).fingerprint if source.is_dir() else ""
        if found != self._identity.fingerprint:
            raise ModelError(f"{source} is gone or has changed since this model was loaded from it: load it again")

    def _activate(self, name: str) -> None:
        """With offloading, brings a component to the device and sends the others away; with phases, reads it."""
        if self._phases is not None:
            self._change_phase(self._phases, name)
            return
        if self._offload_device is None:
            return
        for other, component in self.components.items():
            if other != name and component.device.type != "cpu":
                component.to("cpu")
        if self.components[name].device != self._offload_device:
            self.components[name].to(self._offload_device)

    def _change_phase(self, phases: NetworkPhases, name: str) -> None:
        """Has one component in memory, or none (""), and no other."""
        if phases.active == name:
            return
        resting = phases.resting
        self._story_model, self.vision_tower = resting["story_model"], resting["vision_tower"]
        if not name:
            phases.end()
            return
        assert self.source is not None, "what is read in phases lies in a folder"
        self._check_source(self.source)
        components = phases.begin(name)
        self._story_model, self.vision_tower = components["story_model"], components["vision_tower"]

    def _progress_bar(self, pages: int) -> Any:
        from tqdm.auto import tqdm

        return tqdm(**({"total": pages, "unit": "page", "disable": None, "leave": False} | self._progress_bar_config))


def _replace_files(new: Path, old: Path) -> None:
    """Moves the files of a folder over those of another one, where none of an older model stay.

    Folders that the new one lacks stay: a base language model may lie in one.
    """
    files = {path.relative_to(new) for path in new.rglob("*") if not path.is_dir()}
    for file in sorted(files):
        (old / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(new / file, old / file)
    for folder in {old / file.parent for file in files}:
        for path in folder.iterdir():
            if not path.is_dir() and path.relative_to(old) not in files:
                path.unlink()


def _inside(path: Path, folder: Path) -> Path | None:
    """A folder, if it lies in another one."""
    return path if path.resolve().is_relative_to(folder.resolve()) else None


def _link_files(source: Path, target: Path) -> None:
    """Makes the files of a folder appear in another one, without copying them where that can be."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.is_file():
            try:
                (target / path.name).symlink_to(path.resolve())
            except OSError:
                shutil.copyfile(path, target / path.name)


def _write_config(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")


def _devices(
    device: str | torch.device | None, device_map: str | Mapping[str, str | torch.device] | None
) -> dict[str, str | torch.device]:
    """A device for each component."""
    import torch

    if isinstance(device_map, str) and device_map != "auto":
        device, device_map = device_map, None
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = {} if device_map is None or isinstance(device_map, str) else dict(device_map)
    unknown = set(chosen) - set(COMPONENTS)
    if unknown:
        raise RequestError(f"device_map names {', '.join(sorted(unknown))}: components are {', '.join(COMPONENTS)}")
    devices = {name: chosen.get(name, device) for name in COMPONENTS}
    for one in {str(one) for one in devices.values()}:
        try:
            torch.empty(0, device=one)
        except (RuntimeError, AssertionError):
            raise RequestError(f"there is no device {one!r} here: choose cpu, or leave it to the library") from None
    return devices


def _parameters(component: Any) -> Iterator[torch.Tensor]:
    """Weights of a component; a de-tokenizer is made of several networks."""
    if hasattr(component, "parameters"):
        yield from component.parameters()
    else:
        for part in (component.unet, component.adapter, component.autoencoder):
            yield from part.parameters()


def _type_record(model: StoryModel) -> str:
    """What the words of a story depend on: "float32+bfloat16" computes in the one and decodes from the other."""
    names, quantization = [str(model.dtype).removeprefix("torch.")], model.quantization
    if model.decode_dtype not in (None, model.dtype) and not quantization:
        names.append(str(model.decode_dtype).removeprefix("torch."))
    return "+".join(names) + (f", {quantization}" if quantization else "")


def _recorded_types(record: str) -> tuple[torch.dtype, torch.dtype | None]:
    """The types of `_type_record`, of the language model and for decoding."""
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    names = record.partition(", ")[0].split("+")
    if len(names) > 2 or not all(name in known for name in names):
        raise RequestError(f"the story was begun with an unknown type of weights ({record!r}): start it again")
    types = [known[name] for name in names]
    return types[0], types[1] if len(types) == 2 else None
