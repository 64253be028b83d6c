"""A tiny Qwen2-VL with random weights, and videos for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

PROMPTS = ["a red ball", "a red ball moves and a green ball moves after it"]
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def video(frames: int, height: int, width: int, batch: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(frames)
    coarse = torch.rand(batch, 3, 4, 5, 6, generator=draw)
    return functional.interpolate(coarse, (frames, height, width), mode="trilinear").transpose(1, 2).contiguous()


def lively(model: nn.Module) -> nn.Module:
    """Random weights large enough that the answer depends on every part of the input."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, mean=0.5, std=0.3)
    return model.eval().requires_grad_(False)


SPECIAL = ["endoftext", "im_start", "im_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ content['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2-VL as published: flat configuration, files of the tokenizer and the processor, names of transformers 4."""
    folder = tmp_path_factory.mktemp("Qwen2-VL")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    mark = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(256 + i): {"content": f"<|{name}|>", **mark} for i, name in enumerate(SPECIAL)}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "add_prefix_space": False,
                "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "padding_side": "left", "errors": "replace",
            }
        )
    )  # fmt: skip
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor",
                "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2,
                "merge_size": 2, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
            }
        )
    )  # fmt: skip
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "vocab_size": 320,
                "vision_start_token_id": 259, "vision_end_token_id": 260, "vision_token_id": 261,
                "image_token_id": 262, "video_token_id": 263, "bos_token_id": 256, "eos_token_id": 258,
                "hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
                "num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6,
                "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]}, "tie_word_embeddings": True,
                "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 28,
                "torch_dtype": "bfloat16",
                "vision_config": {
                    "depth": 2, "embed_dim": 32, "mlp_ratio": 4, "num_heads": 2, "in_chans": 3, "hidden_size": 48,
                    "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2,
                },
            }
        )
    )  # fmt: skip
    save_file(old_names(lively(network(folder)[0]).state_dict()), folder / "model.safetensors")
    return folder


def network(folder: Path, rows: int = 3) -> tuple[Qwen2VLForConditionalGeneration, Qwen2VLConfig]:
    config = AutoConfig.from_pretrained(folder)
    model = Qwen2VLForConditionalGeneration(config)
    model.rm_head = nn.Linear(48, rows, bias=False)
    return model.float(), config


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As transformers 4.45 called them; the tied output layer once more, as torch saves it."""
    return {
        key.replace("model.visual.", "visual.").replace("model.language_model.", "model."): value.clone()
        for key, value in state.items()
    }
