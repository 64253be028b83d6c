"""What is fuzzed: everything that the tool reads and that a user, a disk or somebody else's server can spoil."""

from __future__ import annotations

from benchmarks.reliability.targets import answers, data, files, others, settings
from benchmarks.reliability.targets.stage import Target

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        settings.recipe_file, settings.recipe_json, settings.assignments, settings.prompt_file,
        data.pair_set, data.pair_tools, data.clip_listing, data.video_file, others.foreign_set, others.changed_data,
        files.lora_file, files.weights_file, files.checkpoint, files.run_folder, files.evaluation, files.model_folder,
        answers.reward_request, answers.vlm_answer, answers.completion, answers.model_answers, answers.peoples_answers,
    )
}  # fmt: skip
