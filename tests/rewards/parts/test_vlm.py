"""VideoScore and VideoReward on tiny random checkpoints in the published layouts, against a second, plain computation.

The transformers inside are stock parts on both sides; what is written twice is all that lies round them: frames,
pixels, tokens, positions, the head, LoRA and the names of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    Idefics2Config,
    Idefics2Model,
    PreTrainedTokenizerFast,
)

from tests.support.tiny_qwen import CLIP_MEAN, CLIP_STD, PROMPTS, SPECIAL, lively, network, old_names, video
from tests.support.tiny_qwen import base as base
from vpo_kit.errors import ConfigError, DataError, ModelError
from vpo_kit.rewards import loading
from vpo_kit.rewards.parts.videoalign import DataLayout
from vpo_kit.rewards.videoreward import ASPECTS, TOKENS, VideoReward, picked
from vpo_kit.rewards.videoscore import VideoScore, spread

# PEFT 0.21 asks transformers 5 for a property by its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def problem(name: str, kind: type[Exception] = ModelError, **settings: Any) -> str:
    """The one line that a user reads."""
    with pytest.raises(kind) as caught:
        loading.load(loading.plan(name, settings), torch.device("cpu"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------- VideoScore

SCORE_QUESTION = '\nrate this "{text_prompt}",\nfive numbers:\n'


@pytest.fixture(scope="module")
def idefics(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Idefics2Model, nn.Linear]:
    """The folder, and the parts that were written into it."""
    folder = tmp_path_factory.mktemp("VideoScore")
    words = ["<unk>", "<s>", "</s>", *sorted(set(" ".join([*PROMPTS, 'rate this " , five numbers :']).split()))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>",
        padding_side="left",
        additional_special_tokens=["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "Idefics2ImageProcessor", "processor_class": "Idefics2Processor",
                "do_convert_rgb": True, "do_image_splitting": False, "do_normalize": True, "do_pad": True,
                "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
                "resample": 2, "rescale_factor": 1 / 255, "size": {"longest_edge": 56, "shortest_edge": 28},
            }
        )
    )  # fmt: skip
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "Idefics2Processor", "image_seq_len": 4})
    )
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "idefics2", "architectures": ["Idefics2ForSequenceClassification"],
                "image_token_id": tokenizer.convert_tokens_to_ids("<image>"), "pad_token_id": 0,
                "problem_type": "regression", "id2label": {str(i): f"LABEL_{i}" for i in range(5)},
                "tie_word_embeddings": False, "torch_dtype": "bfloat16",
                "text_config": {
                    "model_type": "mistral", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48,
                    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
                    "sliding_window": None,
                },
                "vision_config": {
                    "model_type": "idefics2", "hidden_size": 24, "image_size": 70, "intermediate_size": 32,
                    "num_attention_heads": 2, "num_hidden_layers": 2, "patch_size": 14,
                },
                "perceiver_config": {
                    "model_type": "idefics2", "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2,
                    "num_key_value_heads": 1, "resampler_head_dim": 8,
                },
            }
        )
    )  # fmt: skip
    config = AutoConfig.from_pretrained(folder)
    assert isinstance(config, Idefics2Config)
    model, head = lively(Idefics2Model(config)), lively(nn.Linear(32, 5))
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    state |= {f"score.{key}": value for key, value in head.state_dict().items()}
    half = len(state) // 2
    save_file(dict(list(state.items())[:half]), folder / "model-00001-of-00002.safetensors")
    save_file(dict(list(state.items())[half:]), folder / "model-00002-of-00002.safetensors")
    (folder / "README.md").write_text(f'# A card\n```python\nREGRESSION_QUERY_PROMPT = """{SCORE_QUESTION}"""\n```\n')
    assert isinstance(model, Idefics2Model)
    assert isinstance(head, nn.Linear)
    return folder, model, head


@pytest.fixture(scope="module")
def videoscore(idefics: tuple[Path, Idefics2Model, nn.Linear]) -> VideoScore:
    return VideoScore(VideoScore.Config(weights=idefics[0], dtype="float32"))


def plain_videoscore(parts: tuple[Path, Idefics2Model, nn.Linear], clip: Tensor, prompt: str) -> Tensor:
    """The five aspects of one clip ``[F, 3, 40, 64]``, of which every frame is an image."""
    folder, model, head = parts
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    image = "<fake_token_around_image>" + "<image>" * 4 + "<fake_token_around_image> "
    ids = tokenizer(SCORE_QUESTION.replace("{text_prompt}", prompt) + image * len(clip), return_tensors="pt")
    small = functional.interpolate(clip, (35, 56), mode="bilinear", antialias=True)  # longest side 56
    hidden = model(input_ids=ids["input_ids"], pixel_values=2 * small[None] - 1).last_hidden_state
    return hidden[0, -1] @ head.weight.T + head.bias


def test_videoscore_gives_the_plain_score(
    videoscore: VideoScore, idefics: tuple[Path, Idefics2Model, nn.Linear]
) -> None:
    clips = video(6, 40, 64)
    found = videoscore(clips, PROMPTS, fps=8)
    plain = torch.stack([plain_videoscore(idefics, one, prompt) for one, prompt in zip(clips, PROMPTS, strict=True)])
    torch.testing.assert_close(torch.stack(list(found.components.values()), 1), plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.score, plain.mean(1), atol=1e-4, rtol=1e-4)
    names = ["visual_quality", "temporal_consistency", "dynamic_degree", "text_alignment", "factual_consistency"]
    assert list(found.components) == names
    assert plain.std(0).min() > 1e-3, "the answers must depend on the input"


@pytest.mark.parametrize(("version", "most"), [("v1", 16), ("v1.1", 48)])
def test_videoscore_takes_so_many_frames(idefics: tuple[Path, Any, Any], version: Any, most: int) -> None:
    reward = VideoScore(VideoScore.Config(weights=idefics[0], dtype="float32", version=version))
    clips = video(60, 28, 28, batch=1)
    chosen = clips[:, [int(i * 60 / most) for i in range(most)]]
    torch.testing.assert_close(reward(clips, PROMPTS[:1], fps=8).score, reward(chosen, PROMPTS[:1], fps=8).score)
    assert spread(10, most).tolist() == list(range(10))


# ------------------------------------------------------------------------------------------------------ VideoReward

REWARD_QUESTION = "\nrate {text_prompt}\n<|VQ_reward|>\nEND <|MQ_reward|>\nEND <|TA_reward|>\nEND\n"
NORM = {"VQ_mean": 3.6757, "VQ_std": 2.2476, "MQ_mean": 1.1646, "MQ_std": 1.3811, "TA_mean": 2.8105, "TA_std": 2.5121}


LAYOUTS = ["plain", "wrapped", "lora", "one row"]


def write_checkpoint(folder: Path, base: Path, layout: str) -> tuple[Any, Path]:
    """A trained network and its folder; the network is PEFT's own, with the LoRA beside its layers."""
    model, _ = network(base, rows=1 if layout == "one row" else 3)
    model.resize_token_embeddings(267)  # as VideoAlign does: 264 known tokens and three new ones
    lively(model)
    if layout != "plain":
        names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
        names = [n for n in names if not any(word in n for word in ("visual", "lm_head", "rm_head"))]
        if layout == "lora":
            model.load_state_dict(
                {
                    k: v
                    for k, v in lively(network(base)[0]).state_dict().items()
                    if "embed" not in k and "head" not in k
                },
                strict=False,
            )
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=names, lora_dropout=0.05)).eval()
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter, std=0.1)
    folder.mkdir()
    values = {
        "data_config": {
            "meta_data": "x", "max_frame_pixels": 100352, "num_frames": None, "fps": 2.0, "eval_dim": list(ASPECTS),
            "prompt_template_type": "detailed_special", "sample_type": "uniform", "use_tied_data": True,
        },
        "training_args": {"learning_rate": 2e-6},
        "model_config": {
            "model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct", "output_dim": 3, "use_special_tokens": True,
            "reward_token": "special",
        },
        "peft_lora_config": {"lora_enable": layout != "plain", "lora_r": 4, "lora_alpha": 6, "use_rslora": False},
        "inference_config": NORM,
    }  # fmt: skip
    (folder / "model_config.json").write_text(json.dumps(values))
    (folder / "prompt_template.py").write_text(f'X = 1\nDETAILED_PROMPT_WITH_SPECIAL_TOKEN = """{REWARD_QUESTION}"""\n')
    (folder / "checkpoint-9").mkdir()
    last = folder / "checkpoint-12"
    last.mkdir()
    state = old_names(model.state_dict())
    if layout == "lora":
        lora = {key.replace(".default", ""): value for key, value in state.items() if "lora_" in key}
        save_file(lora, last / "adapter_model.safetensors")
        trained = {k: v for k, v in state.items() if any(word in k for word in ("visual", "embed_tokens", "rm_head"))}
        torch.save(trained, last / "non_lora_state_dict.pth")
    else:
        torch.save(state, last / "model.pth")
    return model.requires_grad_(False), folder


def videoreward(folder: Path, base: Path, **settings: Any) -> VideoReward:
    return VideoReward(VideoReward.Config(weights=folder, base=base, **{"dtype": "float32", **settings}))


def plain_videoreward(model: Any, clip: Tensor, prompt: str, size: tuple[int, int] = (280, 392)) -> Tensor:
    """The head's three numbers for one clip of 4 frames ``[4, 3, H, W]``, all of which are judged.

    `size` is that of 60 x 90 pixels: enlarged to 128 x 28 x 28 pixels, 258.7 x 388, and up to multiples of 28.
    """
    if isinstance(model, PeftModel):
        model = model.base_model.model
    small = functional.interpolate(clip, size, mode="bicubic", antialias=True).clamp(0, 1)
    small = (small - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    patches = []
    for t in range(0, 4, 2):
        for y in range(0, size[0], 28):
            for x in range(0, size[1], 28):
                for dy in (0, 14):
                    for dx in (0, 14):
                        patch = small[t : t + 2, :, y + dy : y + dy + 14, x + dx : x + dx + 14]
                        patches.append(patch.transpose(0, 1).flatten())
    grid = torch.tensor([[2, size[0] // 14, size[1] // 14]])
    seen = model.model.visual(torch.stack(patches), grid_thw=grid).pooler_output
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokens = {f"<|{name}|>": 256 + i for i, name in enumerate(SPECIAL)} | {t: 264 + i for i, t in enumerate(TOKENS)}
    text = "<|im_start|>user\n<|vision_start|>" + "<|video_pad|>" * len(seen) + "<|vision_end|>"
    text += REWARD_QUESTION.replace("{text_prompt}", prompt) + "<|im_end|>\n<|im_start|>assistant\n"
    ids = []
    while text:
        mark = next((token for token in tokens if text.startswith(token)), None)
        ids.append(tokens[mark] if mark else letters[{" ": "Ġ", "\n": "Ċ"}.get(text[0], text[0])])
        text = text[len(mark or text[0]) :]
    row = torch.tensor(ids)
    embedded = model.model.language_model.embed_tokens(row)
    embedded[row == 263] = seen
    positions = torch.arange(len(row)).view(1, 1, -1).expand(3, 1, -1)
    hidden = model.model.language_model(inputs_embeds=embedded[None], position_ids=positions).last_hidden_state[0]
    read = torch.stack([model.rm_head(hidden[ids.index(tokens[token])]) for token in TOKENS])
    return read.diagonal() if read.shape[1] == 3 else read[:, 0]


def normalised(raw: Tensor) -> Tensor:
    mean = torch.tensor([NORM[f"{aspect}_mean"] for aspect in ASPECTS])
    return (raw - mean) / torch.tensor([NORM[f"{aspect}_std"] for aspect in ASPECTS])


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Any, Path]:
    return write_checkpoint(tmp_path_factory.mktemp("reward") / "wrapped", base, "wrapped")


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_videoreward_gives_the_plain_score(tmp_path: Path, base: Path, layout: str) -> None:
    model, folder = write_checkpoint(tmp_path / "VideoReward", base, layout)
    clips = video(4, 60, 90)
    found = videoreward(folder, base, batch_size=2)(clips, PROMPTS, fps=2)
    raw = torch.stack([plain_videoreward(model, one, prompt) for one, prompt in zip(clips, PROMPTS, strict=True)])
    aspects = normalised(raw)
    torch.testing.assert_close(torch.stack([found.components[a] for a in ASPECTS], 1), aspects, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(found.score, aspects.sum(1), atol=2e-5, rtol=2e-5)
    assert aspects.std(0).min() > 1e-3, "the answers must depend on the input"
    assert (aspects[:, 0] - aspects[:, 1]).abs().min() > 1e-3


@torch.no_grad()
def test_videoreward_shrinks_large_frames(base: Path, wrapped: tuple[Any, Path]) -> None:
    clips = torch.rand(1, 4, 3, 480, 700, generator=torch.Generator().manual_seed(0)).square()
    raw = plain_videoreward(wrapped[0], clips[0], PROMPTS[0], (252, 364))  # at most 100352 pixels
    found = videoreward(wrapped[1], base)(clips, PROMPTS[:1], fps=2)
    torch.testing.assert_close(found.score[0], normalised(raw).sum(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_videoreward_without_a_norm_is_raw(tmp_path: Path, base: Path) -> None:
    model, folder = write_checkpoint(tmp_path / "VideoReward", base, "wrapped")
    values = json.loads((folder / "model_config.json").read_text())
    del values["inference_config"]
    (folder / "model_config.json").write_text(json.dumps(values))
    clips = video(4, 60, 90, batch=1)
    found = videoreward(folder, base)(clips, PROMPTS[:1], fps=2)
    torch.testing.assert_close(
        found.score, plain_videoreward(model, clips[0], PROMPTS[0]).sum()[None], atol=5e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("count", "fps", "expected"),
    [
        (81, 16, [0, 9, 18, 27, 36, 44, 53, 62, 71, 80]),  # 5.06 s: 10 frames
        (17, 8, [0, 5, 11, 16]),  # 2.1 s: 4 frames
        (8, 8, [0, 2, 5, 7]),  # 1 s would be 2 frames: at least 4
        (5, 8, [0, 1, 3, 4]),
        (3, 8, [0, 2]),  # an even number
        (4, 0.001, [0, 1, 2, 3]),  # a picture every quarter of an hour
    ],
)
def test_videoreward_takes_these_frames(count: int, fps: float, expected: list[int]) -> None:
    settings = DataLayout(max_frame_pixels=100352, prompt_template_type="detailed_special")
    assert picked(count, fps, settings).tolist() == expected


def test_one_frame_is_too_few(base: Path, wrapped: tuple[Any, Path]) -> None:
    with pytest.raises(DataError, match="'videoreward' judges motion and needs at least 2 frames, not a single one"):
        videoreward(wrapped[1], base)(video(1, 60, 90), PROMPTS, fps=1)


def test_videoscore_judges_a_single_frame(idefics: Any) -> None:
    score = VideoScore(VideoScore.Config(weights=idefics[0], dtype="float32"))(video(1, 60, 90), PROMPTS, fps=1).score
    assert torch.isfinite(score).all()


# ------------------------------------------------------------------------------------------------------------- both


@pytest.fixture(params=["videoscore", "videoreward"])
def make(request: pytest.FixtureRequest, base: Path, wrapped: Any, idefics: Any) -> Callable[..., Any]:
    """The reward with some settings, on 60 x 90 pixels."""
    if request.param == "videoscore":
        return lambda **settings: VideoScore(VideoScore.Config(weights=idefics[0], **{"dtype": "float32", **settings}))
    return lambda **settings: videoreward(wrapped[1], base, **settings)


def test_the_gradient_reaches_the_pixels(make: Callable[..., Any]) -> None:
    clips = video(4, 60, 90).mul_(1.4).sub_(0.2).requires_grad_()  # some pixels beyond [0, 1]
    make()(clips, PROMPTS, fps=2).score.sum().backward()
    assert clips.grad is not None
    assert torch.isfinite(clips.grad).all()
    assert (clips.grad.abs().amax((2, 3, 4)) > 0).all(), "a frame without gradient"
    assert (clips.grad[clips < 0] != 0).any()


@torch.no_grad()
def test_batches_and_padding_change_nothing(make: Callable[..., Any]) -> None:
    clips = video(8, 60, 90, batch=3)
    prompts = [PROMPTS[1], PROMPTS[0], PROMPTS[1]]
    one, two = (make(batch_size=n)(clips, prompts, fps=4, segments=[(0, 4), (4, 8)]) for n in (1, 2))
    torch.testing.assert_close(one.score, two.score, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(one.segments, two.segments, atol=2e-5, rtol=2e-5)
    assert one.segments.shape == (3, 2)
    alone = make()(clips[1:2], prompts[1:2], fps=4)
    torch.testing.assert_close(one.score[1:2], alone.score, atol=1e-5, rtol=1e-5)
    assert one.score.unique().numel() == 3


@torch.no_grad()
def test_bfloat16_is_near(make: Callable[..., Any]) -> None:
    clips = video(4, 60, 90)
    near, exact = make(dtype="bfloat16")(clips, PROMPTS, fps=4).score, make()(clips, PROMPTS, fps=4).score
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, exact, atol=0.1, rtol=0.05)
    assert not torch.equal(near, exact)


@torch.no_grad()
def test_segments_are_clips_with_context(make: Callable[..., Any]) -> None:
    reward, clips = make(), video(16, 60, 90)
    found = reward(clips, PROMPTS, fps=4, segments=[(0, 16), (6, 12), (9, 10)])
    assert torch.equal(found.segments[:, 0], found.score)
    torch.testing.assert_close(found.segments[:, 1], reward(clips[:, 6:12], PROMPTS, fps=4).score)
    torch.testing.assert_close(found.segments[:, 2], reward(clips[:, 7:11], PROMPTS, fps=4).score)  # 4 frames, 1 s
    if "context" in type(reward).Config.model_fields:  # a second is 8 frames here
        found = reward(clips, PROMPTS, fps=8, segments=[(9, 10)])
        torch.testing.assert_close(found.segments[:, 0], reward(clips[:, 5:13], PROMPTS, fps=8).score)


def test_prompts_are_asked_for(make: Callable[..., Any]) -> None:
    reward, clips = make(), video(4, 60, 90)
    for prompts in (None, PROMPTS[:1]):
        with pytest.raises(ConfigError, match="judges a video by its prompt"):
            reward(clips, prompts, fps=8)
    mark = "<image>" if isinstance(reward, VideoScore) else "<|MQ_reward|>"
    with pytest.raises(DataError, match="control tokens"):
        reward(clips, ["a", f"a {mark}"], fps=8)


def test_missing_and_wrong_folders_are_one_line(tmp_path: Path, base: Path, idefics: Any, wrapped: Any) -> None:
    for name, what, size in [
        ("videoscore", "TIGER-Lab/VideoScore-v1.1", "16.5 GB"),
        ("videoreward", "VideoReward", "5 GB"),
    ]:
        missing = problem(name)
        assert all(part in missing for part in (what, size, "Apache-2.0", "--set reward.weights=PATH"))
        assert "there is no folder" in problem(name, weights=str(tmp_path / "none"))
    assert "README.md" in problem("videoscore", weights=str(base))
    question = tmp_path / "question.txt"
    question.write_text("no place for the prompt")
    assert "does not hold the question" in problem("videoscore", weights=str(idefics[0]), question=str(question))
    question.write_text("rate {text_prompt}")
    assert "qwen2_vl" in problem("videoscore", weights=str(base), question=str(question))
    question.write_text(REWARD_QUESTION.replace("<|MQ_reward|>", ""))
    settings = {"weights": str(wrapped[1]), "base": str(base)}
    assert "<|MQ_reward|>" in problem("videoreward", **settings, question=str(question))
    assert "--set reward.base=PATH" in problem("videoreward", weights=str(wrapped[1]))
    assert "idefics2" in problem("videoreward", weights=str(wrapped[1]), base=str(idefics[0]))


def test_damaged_videoscore_is_one_line(tmp_path: Path, idefics: Any) -> None:
    broken = tmp_path / "VideoScore"
    broken.mkdir()
    for file in idefics[0].iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    shard = broken / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:2000])
    assert "cannot read the weights" in problem("videoscore", weights=str(broken))
    shard.unlink()
    assert "does not hold the weights" in problem("videoscore", weights=str(broken))
    (broken / "config.json").write_text("{")
    assert "cannot read the configuration" in problem("videoscore", weights=str(broken))


def test_damaged_videoreward_is_one_line(tmp_path: Path, base: Path) -> None:
    _, folder = write_checkpoint(tmp_path / "VideoReward", base, "wrapped")
    settings = {"weights": str(folder), "base": str(base)}
    file = folder / "checkpoint-12" / "model.pth"
    state = torch.load(file, weights_only=True)
    for cut, part in [("rm_head.weight", "rm_head"), ("lora_A.default.weight", "one of its halves")]:
        torch.save({key: value for key, value in state.items() if cut not in key}, file)
        assert part in problem("videoreward", **settings)
    torch.save({key: value[:200] if "embed" in key else value for key, value in state.items()}, file)
    assert "do not belong together" in problem("videoreward", **settings)
    file.write_bytes(b"not a checkpoint")
    assert "cannot read the weights" in problem("videoreward", **settings)
    file.unlink()
    assert "adapter_model.safetensors" in problem("videoreward", **settings)
    (folder / "prompt_template.py").unlink()
    assert "KwaiVGI/VideoAlign" in problem("videoreward", **settings)
    sound = (folder / "model_config.json").read_text()
    wrong = {
        ("data_config", "prompt_template_type"): "simple",
        ("data_config", "fps"): 0,
        ("peft_lora_config", "lora_r"): 0,
    }
    for (part, key), value in {**wrong, **{("inference_config", f"{one}_std"): 0 for one in ASPECTS}}.items():
        values = json.loads(sound)
        values[part][key] = value
        (folder / "model_config.json").write_text(json.dumps(values))
        assert key in problem("videoreward", ConfigError, **settings)
    (folder / "model_config.json").unlink()
    assert "model_config.json" in problem("videoreward", **settings)


def test_pieces_of_a_lora_that_do_not_fit(tmp_path: Path, base: Path) -> None:
    _, folder = write_checkpoint(tmp_path / "VideoReward", base, "lora")
    rest = folder / "checkpoint-12" / "non_lora_state_dict.pth"
    torch.save({k: v for k, v in torch.load(rest, weights_only=True).items() if "embed" not in k}, rest)
    assert "reward tokens" in problem("videoreward", weights=str(folder), base=str(base))
