"""Published weights of judges: what is missing and how to get it, and reading them without pickle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vpo_kit.errors import ModelError, first_line

State = dict[str, Tensor]
M = TypeVar("M", bound=nn.Module)
FOLDER = "VPO_WEIGHTS"
"""The environment variable that names the folder in which published weights are looked for by their own names."""


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """The place where a user finds a judge's weights, for the one line that says so."""

    reward: str
    what: str
    place: str
    size: str
    licence: str
    folder: bool = False
    setting: str = "weights"

    @property
    def name(self) -> str:
        """The file or folder as it is published."""
        return next(word for word in self.what.split() if "/" in word or "." in word).rpartition("/")[2]

    def require(self, path: Path | None) -> Path:
        """`path`, or where none is given what lies under the published name in the folder of `FOLDER`: judges that look
        on have no settings of their own. Raises `ModelError` with what to download, its size and licence, and where to
        put it.
        """
        shelf = os.environ.get(FOLDER)
        wanted = Path(shelf, self.name) if path is None and shelf else path
        if wanted is not None and (wanted.is_dir() if self.folder else wanted.is_file()):
            return wanted
        missing = f"there is no {'folder' if self.folder else 'file'} {wanted}"
        if wanted is None:
            missing = f"reward {self.reward!r} needs weights"
        raise ModelError(
            f"{missing}: download {self.what} ({self.size}, {self.licence}) from {self.place} into a "
            f"folder that {FOLDER} names, or give its path with --set reward.{self.setting}=PATH"
        )


def read_state(path: Path) -> State:
    """The tensors of a ``.safetensors`` file, or of a torch file: of its ``state_dict`` or ``model`` where it has one.

    Raises `ModelError` for what cannot be read, which includes a torch file that holds more than plain data.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}: {error.strerror or first_line(error)}") from None
    except Exception:  # damaged files end in a dozen kinds of error, with pages of advice that does not apply
        raise ModelError(f"cannot read the weights {path}: it is damaged or holds more than tensors") from None
    if isinstance(found, Mapping):
        found = found.get("state_dict", found.get("model", found))
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{path} does not hold weights: a mapping of names to tensors is needed")
    return dict(found)


def read_folder(folder: Path) -> State:
    """The tensors of every ``*.safetensors`` file of a model folder. Raises `ModelError`."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} holds no *.safetensors: give the whole model folder")
    state: State = {}
    for file in files:
        state |= read_state(file)
    return state


def under(state: Mapping[str, Tensor], prefix: str) -> State:
    """The entries below `prefix`, without it, and without what a published file holds that is no weight."""
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in found.items() if not key.endswith("relative_position_index")}


def built(kind: Callable[[State], M], state: State, path: Path, what: str) -> M:
    """The module that `kind` makes from the shapes of `state`, filled with it: every name and shape must fit.

    Raises `ModelError` where the file holds something else.
    """
    try:
        module = kind(state)
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path} does not hold the weights of {what}: {error} is missing or misshapen") from None
    check_fit(module, state, path, what)
    module.load_state_dict(state)
    return module


def check_fit(module: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Raises `ModelError` with the first name that `module` and `state` do not share in name and shape."""
    own = module.state_dict()
    wrong = [key for key in own if key not in state] + [key for key in state if key not in own]
    wrong += [key for key in own if key in state and own[key].shape != state[key].shape]
    if wrong:
        raise ModelError(f"{path} does not hold the weights of {what}: {wrong[0]} is missing, unknown or misshapen")
