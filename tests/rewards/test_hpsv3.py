"""HPSv3 on tiny random weights in the published layout, against a second, plain computation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, Qwen2VLForConditionalGeneration

from tests.support.tiny_qwen import CLIP_MEAN, CLIP_STD, PROMPTS, SPECIAL, lively, old_names, video
from tests.support.tiny_qwen import base as base  # the folder of a tiny Qwen2-VL
from vpo_kit.errors import ConfigError, DataError, ModelError
from vpo_kit.rewards import loading
from vpo_kit.rewards.hpsv3 import TOKEN, HPSv3

INSTRUCTION, ENDING = "\nrate {text_prompt} please\n", "\nthe number: <|Reward|>\nEND\n"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ content['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def network(folder: Path) -> Any:
    """The layout of the published file: the generator's names, and a head of three layers (0, 3 and 5)."""
    model = Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(folder))
    model.resize_token_embeddings(265)  # 264 known tokens and the reward's
    model.rm_head = nn.Sequential(
        nn.Linear(48, 12), nn.ReLU(), nn.Dropout(0.05), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2)
    )
    return lively(model.float())


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Any, Path, Path]:
    """The network, its file, and the base folder without weights."""
    root = tmp_path_factory.mktemp("HPSv3")
    shutil.copytree(base, root / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    (root / "base" / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    # bounds of the base's own, by which a frame is not to be resized once more
    settings = json.loads((root / "base" / "preprocessor_config.json").read_text())
    small = {"min_pixels": 784, "max_pixels": 7840, "size": {"shortest_edge": 784, "longest_edge": 7840}}
    (root / "base" / "preprocessor_config.json").write_text(json.dumps({**settings, **small}))
    model = network(root / "base")
    save_file({key: value.clone() for key, value in model.state_dict().items()}, root / "HPSv3.safetensors")
    (root / "data_collator_qwen.py").write_text(
        f'X = 1\nINSTRUCTION = """{INSTRUCTION}"""\nprompt_with_special_token = """{ENDING}"""\n'
        'prompt_without_special_token = """\nnothing\n"""\n'
    )
    return model, root / "HPSv3.safetensors", root / "base"


def hpsv3(parts: tuple[Any, Path, Path], **settings: Any) -> HPSv3:
    _, weights, base = parts
    return HPSv3(HPSv3.Config(**{"weights": weights, "base": base, "dtype": "float32", "frames": 2, **settings}))


@pytest.fixture(scope="module")
def judge(parts: tuple[Any, Path, Path]) -> HPSv3:
    return hpsv3(parts)


def plain(model: Any, frame: Tensor, prompt: str, size: tuple[int, int]) -> Tensor:
    """The head's two numbers for a frame ``[3, H, W]``."""
    small = functional.interpolate(frame[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    small = (small - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    patches = [
        torch.stack([small[:, y + dy : y + dy + 14, x + dx : x + dx + 14]] * 2, 1).flatten()
        for y in range(0, size[0], 28) for x in range(0, size[1], 28) for dy in (0, 14) for dx in (0, 14)
    ]  # fmt: skip
    grid = torch.tensor([[1, size[0] // 14, size[1] // 14]])
    seen = model.model.visual(torch.stack(patches), grid_thw=grid).pooler_output
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokens = {f"<|{name}|>": 256 + i for i, name in enumerate(SPECIAL)} | {TOKEN: 264}
    text = "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * len(seen) + "<|vision_end|>"
    text += (INSTRUCTION + ENDING).replace("{text_prompt}", prompt) + "<|im_end|>\n<|im_start|>assistant\n"
    ids = []
    while text:
        mark = next((token for token in tokens if text.startswith(token)), None)
        ids.append(tokens[mark] if mark else letters[{" ": "Ġ", "\n": "Ċ"}.get(text[0], text[0])])
        text = text[len(mark or text[0]) :]
    row = torch.tensor(ids)
    embedded = model.model.language_model.embed_tokens(row)
    embedded[row == 262] = seen
    positions = torch.arange(len(row)).view(1, 1, -1).expand(3, 1, -1)
    hidden = model.model.language_model(inputs_embeds=embedded[None], position_ids=positions).last_hidden_state[0]
    return model.rm_head(hidden[ids.index(264)])


@pytest.mark.parametrize(("height", "width", "size"), [(60, 90, (392, 560)), (700, 700, (448, 448))])
def test_the_plain_score(parts: Any, judge: HPSv3, height: int, width: int, size: tuple[int, int]) -> None:
    """Small and large frames are brought to about 256 x 28 x 28 pixels; the middles of both halves are looked at."""
    clips = video(4, height, width)
    with torch.no_grad():
        out = judge(clips, PROMPTS, fps=8)
        for clip, prompt, score, spread in zip(clips, PROMPTS, out.score, out.components["deviation"], strict=True):
            both = torch.stack([plain(parts[0], clip[k], prompt, size) for k in (1, 3)])
            torch.testing.assert_close(score, both[:, 0].mean(), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(spread, both[:, 1].exp().mean(), atol=1e-4, rtol=1e-4)
    assert abs(float(out.score[0] - out.score[1])) > 1e-3


def test_old_names_and_chunks_change_nothing(parts: Any, judge: HPSv3, tmp_path: Path) -> None:
    old = {key.replace("model.rm_head", "rm_head"): value for key, value in old_names(parts[0].state_dict()).items()}
    save_file(old, tmp_path / "HPSv3.safetensors")
    question = parts[1].with_name("data_collator_qwen.py")
    same = hpsv3((None, tmp_path / "HPSv3.safetensors", parts[2]), question=question, chunk=4)
    clips = video(4, 60, 90)
    with torch.no_grad():
        one, two = (found(clips, PROMPTS, fps=8, segments=[(0, 2), (2, 4)]) for found in (judge, same))
    torch.testing.assert_close(one.score, two.score, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.segments.mean(1), one.score, atol=1e-4, rtol=1e-4)


def test_the_gradient_reaches_the_pixels(judge: HPSv3) -> None:
    clips = video(4, 60, 90, batch=1).requires_grad_()
    judge(clips, PROMPTS[:1], fps=8).score.sum().backward()
    assert torch.isfinite(clips.grad).all()
    assert (clips.grad[0].flatten(1).norm(dim=1) > 0).tolist() == [False, True, False, True]


def test_prompts_are_needed_and_hold_no_marks(judge: HPSv3) -> None:
    clips = video(2, 60, 90, batch=1)
    with pytest.raises(ConfigError, match="by its prompt"):
        judge(clips, None, fps=8)
    with pytest.raises(DataError, match="control tokens"):
        judge(clips, [f"a dog {TOKEN}"], fps=8)


def problem(**settings: Any) -> str:
    with pytest.raises(ModelError) as caught:
        loading.load(loading.plan("hpsv3", settings), torch.device("cpu"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_missing_or_wrong(parts: Any, tmp_path: Path) -> None:
    _, weights, base = parts
    assert "HPSv3.safetensors (17 GB, MIT)" in problem()
    assert "reward.base=PATH" in problem(weights=weights)
    lonely = tmp_path / "HPSv3.safetensors"
    shutil.copy(weights, lonely)
    assert "data_collator_qwen.py" in problem(weights=lonely, base=base)
    (tmp_path / "question.txt").write_text("rate {text_prompt}")
    assert "does not hold the question" in problem(weights=weights, base=base, question=tmp_path / "question.txt")
    state = {key: value.clone() for key, value in parts[0].state_dict().items()}
    headless = {key: value for key, value in state.items() if "rm_head.5" not in key}
    save_file(headless, tmp_path / "headless.safetensors")
    question = weights.with_name("data_collator_qwen.py")
    assert "HPSv3's head" in problem(weights=tmp_path / "headless.safetensors", base=base, question=question)
    embeddings = "model.language_model.embed_tokens.weight"
    save_file({**state, embeddings: state[embeddings][:264].clone()}, tmp_path / "short.safetensors")
    assert "do not belong together" in problem(weights=tmp_path / "short.safetensors", base=base, question=question)
