"""Tensors on disk, under the hash of everything that they depend on: prompts' embeddings and clips' latents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vpo_kit import __version__, files
from vpo_kit.errors import OutputError
from vpo_kit.models.base import VideoModel

CHUNK = 2**20
"""Words of eight bytes that `weights_hash` adds up at a time."""


class DiskCache:
    """A folder of safetensors files that several runs and processes may use at once.

    A file is written beside and renamed, and carries a hash of its tensors: one that is damaged is made anew, and
    `on_notice` gets a line. The folder may be removed at any time. Raises `OutputError` for one that cannot be made.
    """

    def __init__(self, folder: Path, on_notice: Callable[[str], None]) -> None:
        self.folder = folder
        self._notice = on_notice
        self.writes = True
        """Whether what is made is still written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cache: cannot make the folder {folder}: {error.strerror or error}") from error

    def get(
        self, kind: str, facts: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """The tensors, on the CPU, that `make` gives where they are not there yet; `facts` is all they depend on."""
        path = self._path(kind, facts)
        if path.is_file():
            try:
                return _read(path)
            except (SafetensorError, OSError, ValueError):
                self._notice(f"cache: {path} is damaged: it is made anew")
        made = {name: value.detach().cpu().contiguous().clone() for name, value in make().items()}
        if self.writes:
            self._write(path, made)
        return made

    def known(self, kind: str, facts: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """Plain values, as JSON gives them back, that `make` gives where they are not there yet."""
        path = self._path(kind, facts, "json")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            made = json.dumps(make(), default=str)
        if self.writes:
            try:
                with files.beside(path, shared=True) as partial:
                    partial.write_text(made, encoding="utf-8")
            except OutputError as error:
                self._full(error)
        return json.loads(made)

    def _full(self, error: OutputError) -> None:
        self.writes = False  # a full disk is no reason to end a run
        self._notice(f"cache: {error}; from here on nothing is added")

    def holds(self, kind: str, facts: Mapping[str, Any]) -> bool:
        """Whether there is a file for these facts."""
        return self._path(kind, facts).is_file()

    def _path(self, kind: str, facts: Mapping[str, Any], suffix: str = "safetensors") -> Path:
        key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
        return self.folder / kind / key[:2] / f"{key}.{suffix}"

    def _write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        try:
            with files.beside(path, shared=True) as partial:
                files.put_tensors(partial, tensors, {"sha256": _hash(tensors)})
        except OutputError as error:
            self._full(error)


def text_facts(model: VideoModel, disk: DiskCache | None = None) -> dict[str, Any]:
    """All that the embedding of a prompt depends on, but for the prompt and what is shown with it. An encoder whose
    files `disk` knows is not loaded for it.
    """
    networks = {name: [str(part.dtype), _public(part.config)] for name, part in model.networks.items()}
    seeing = ("image_processor",) if model.text_sees_pictures else ()
    texts = _parts(model, ("text_encoder", "tokenizer", *seeing), disk)
    return {**_common(model), "networks": networks, "texts": texts}


def latent_facts(model: VideoModel) -> dict[str, Any]:
    """All that the latent of a video depends on, but for the video: tiling included, which changes it at the seams."""
    numbers = {k: v for k, v in vars(model.pipeline.vae).items() if isinstance(v, bool | int | float)}
    switches = {k: v for k, v in numbers.items() if not k.startswith("_")}
    padding = {"padding": model.padding} if model.padding else {}  # repeated frames are a part of the latent
    return {**_common(model), "vae": _facts(model.pipeline.vae), "switches": switches, **padding}


def picture_facts(model: VideoModel, disk: DiskCache | None = None) -> dict[str, Any]:
    """All that is seen of a picture depends on, but for the picture and the size of the video; `disk` as above."""
    parts = _parts(model, ("image_encoder", "image_processor", "feature_extractor"), disk)
    return {**latent_facts(model), "seen by": parts}


def weights_hash(module: nn.Module) -> str:
    """A hash of every bit of the weights: the same wherever they lie and whatever file they came from.

    Each chunk is a sum of 64-bit words times fixed random odd numbers, modulo 2^64, which takes seconds for billions
    of weights and runs where the weights are; the sums, names, shapes and dtypes are hashed with SHA-256.
    """
    digest = hashlib.sha256()
    factors: dict[torch.device, Tensor] = {}
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        if tensor.device not in factors:
            generator = torch.Generator().manual_seed(0)
            drawn = torch.randint(-(2**63), 2**63 - 1, (CHUNK,), generator=generator) | 1
            factors[tensor.device] = drawn.to(tensor.device)
        raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
        sums = []
        for part in raw.split(8 * CHUNK):
            words = torch.nn.functional.pad(part, (0, -len(part) % 8)).clone().view(torch.int64)
            sums.append((words * factors[tensor.device][: len(words)]).sum())
        if sums:
            digest.update(json.dumps(torch.stack(sums).tolist()).encode())
    return digest.hexdigest()


@cache
def _versions() -> dict[str, str]:
    names = ("torch", "diffusers", "transformers")
    return {"vpo-kit": __version__, **{name: version(name) for name in names}}


def _common(model: VideoModel) -> dict[str, Any]:
    return {"versions": _versions(), "family": type(model).__name__, "device": model.device.type}


def _parts(model: VideoModel, beginnings: tuple[str, ...], disk: DiskCache | None) -> dict[str, Any]:
    """The facts of the pipeline's parts whose names begin so."""
    late = model.encoders.names if model.encoders else ()
    components = [(name, part) for name, part in model.pipeline.components.items() if name.startswith(beginnings)]
    found = {name: _late_facts(model, name, disk) for name, _ in components if name in late}
    return found | {name: _facts(part) for name, part in components if part is not None and name not in late}


def _late_facts(model: VideoModel, name: str, disk: DiskCache | None) -> Any:
    """The facts of an encoder, which is loaded only where `disk` does not know its files."""
    encoders = model.encoders
    assert encoders is not None

    def make() -> dict[str, Any]:
        encoders.come(name)
        return _facts(getattr(model.pipeline, name))

    held = encoders.files(name)
    if disk is None or held is None:
        return make()
    variant = {"variant": encoders.variant} if encoders.variant else {}  # which of the files are read
    return disk.known("encoders", {**_common(model), "files": held, "dtype": str(model.dtype), **variant}, make)


def _facts(part: Any) -> dict[str, Any]:
    if isinstance(part, nn.Module):
        return {"config": _public(part.config), "weights": weights_hash(part)}
    if not hasattr(part, "get_vocab"):  # what prepares pictures has settings alone
        return _public(part)
    backend = getattr(part, "backend_tokenizer", None)
    rules = part.get_vocab() if backend is None else json.loads(backend.to_str())
    passing = {} if backend is None else {"padding": None, "truncation": None}  # of the last call
    vocabulary = json.dumps({**rules, **passing}, sort_keys=True)
    settings = {name: getattr(part, name, None) for name in ("model_max_length", "padding_side", "chat_template")}
    return {"class": type(part).__name__, "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest(), **settings}


def _public(config: Any) -> dict[str, Any]:
    """A configuration without the path it was read from."""
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {key: value for key, value in values.items() if not key.startswith("_")}


def _read(path: Path) -> dict[str, Tensor]:
    """Raises `SafetensorError`, `OSError` or, where the content has changed, `ValueError`."""
    with safe_open(path, "pt") as file:
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        expected = (file.metadata() or {}).get("sha256")
    if _hash(tensors) != expected:
        raise ValueError("the tensors have changed")
    return tensors


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
