"""The layouts that foreign sets come in: which columns hold what, and the set's own words for a verdict.

A layout is a line of `LAYOUTS`: it is known by its columns, or asked for by name. What is no table of two files or of
one file a row is brought into that shape by `shapes`. Sources: the sets' own repositories and papers (VideoAlign,
arXiv 2501.13918; VisionReward, 2412.21059; MJ-Bench-Video, 2502.01719; GenAI-Bench, 2406.04485; UVE, 2503.09949;
VideoDPO, 2412.14167; VideoScore, 2406.15252; FETV, 2311.01813; KoNViD-1k, LSVQ, 2011.13544; T2VQA-DB, 2403.11956).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vpo_kit.errors import ConfigError
from vpo_kit.judged import shapes
from vpo_kit.judged.table import Row

Shape = Callable[[Sequence[Row]], list[Row]]


def _words(first: str, second: str, *ties: str) -> dict[str, int]:
    return {first: 1, second: -1, **dict.fromkeys(ties, 0)}


@dataclass(frozen=True, kw_only=True)
class PairLayout:
    """Two files and a verdict a row. A verdict that is a mapping has a dimension for each of its names."""

    files: tuple[str, str]
    verdicts: Sequence[str]
    words: Mapping[str, int]
    """Each of the set's words to +1 (first), -1 (second) or 0; capitals do not count."""
    prompt: str = "prompt"
    models: tuple[str, str] | None = None
    discard: str = ""
    """A column whose true rows are not meant to be used."""
    aspect: str = ""
    """A column that names the dimension of the row's verdict."""
    made: bool = False
    """Whether `shape` makes the column of verdicts, which the table itself lacks."""
    shape: Shape | None = None
    """What brings rows into two files and a verdict (`shapes`)."""

    @property
    def needed(self) -> set[str]:
        """The columns by which the layout is known."""
        own = {self.verdicts[0]} if len(self.verdicts) == 1 and not self.made else set()
        return {*self.files, self.prompt} | own


@dataclass(frozen=True, kw_only=True)
class RatingLayout:
    """One clip a row; every other column whose values are numbers, most of them, is a dimension, or those of `scores`.

    A score that is a mapping has a dimension for each of its names.
    """

    file: str
    prompt: str = "prompt"
    model: str = "model"
    scores: Sequence[str] = ()
    no_scores: Sequence[str] = ()
    """Columns that may hold numbers and are none."""
    known_by: Sequence[str] = field(default=("prompt",))
    """Columns that must be there, beside the file and the scores."""
    shape: Shape | None = None

    @property
    def needed(self) -> set[str]:
        """The columns by which the layout is known."""
        return set(self.known_by) if self.shape else {self.file, *self.scores, *self.known_by}


Layout = PairLayout | RatingLayout
_OWN = {text: int(float(text)) for text in ("1", "-1", "0", "1.0", "-1.0", "0.0")}
"""Our labels; other programs write whole numbers with a point where a column has empty cells."""
LAYOUTS: dict[str, Layout] = {
    "pair-set": PairLayout(
        files=("first_file_name", "second_file_name"),
        verdicts=("judged",),
        words=_OWN,
        models=("first_model", "second_model"),
        made=True,
        shape=shapes.pair_set,
    ),
    "rated-set": RatingLayout(file="file_name", prompt="text", scores=("scores",), known_by=("text",)),
    "videogen-rewardbench": PairLayout(
        files=("path_A", "path_B"),
        verdicts=("VQ", "MQ", "TA", "Overall", "ALL"),
        words=_words("A", "B", "same"),
        models=("A_model", "B_model"),
    ),
    "genai-bench": PairLayout(
        files=("left_video", "right_video"),
        verdicts=("vote_type",),
        words=_words("leftvote", "rightvote", "tievote", "bothbad_vote"),
        models=("left_model", "right_model"),
    ),
    "visionreward": PairLayout(
        files=("video1_path", "video2_path"), verdicts=("standard_answer",), words=_words("video1", "video2", "tie")
    ),
    "mj-bench-video": PairLayout(
        files=("video_0_path", "video_1_path"),
        verdicts=("overall_preference", "category_preference"),
        words=_words("Video 1 better", "Video 2 better", "Same"),
        prompt="caption",
        discard="discard",
    ),
    "uve": PairLayout(
        files=("video_a", "video_b"),
        verdicts=("preference",),
        words=_words("A is better", "B is better"),
        aspect="aspect",
    ),
    "rapidata": PairLayout(
        files=("file_name1", "file_name2"),
        verdicts=("judged",),
        words={"1": 1, "-1": -1, "0": 0},
        models=("model1", "model2"),
        made=True,
        shape=shapes.vote_shares,
    ),
    "videodpo": PairLayout(
        files=("video1", "video2"),
        verdicts=("verdict",),
        words=_words("first", "second"),
        prompt="frame_caption",
        made=True,
        shape=shapes.numbered,
    ),
    "pairs": PairLayout(
        files=("first", "second"),
        verdicts=("verdict",),
        words=_words("first", "second", "tie"),
        models=("first_model", "second_model"),
        shape=shapes.by_dimension,
    ),
    "genai-bench-video": RatingLayout(
        file="file", scores=("rating",), known_by=("id", "prompt", "models"), shape=shapes.by_model
    ),
    "videofeedback": RatingLayout(
        file="id",
        prompt="text prompt",
        no_scores=("images", "video link", "conversations"),
        known_by=("text prompt", "video link"),
    ),
    "fetv": RatingLayout(file="file_name"),
    "mos": RatingLayout(file="file", scores=("mos",), known_by=()),
}
"""The layouts by name, of which `pairs` and `mos` are the plain ones."""

ALIASES = {
    "videoreward": "videogen-rewardbench",
    "monetbench": "visionreward",
    "uve-bench": "uve",
    "konvid": "mos",
    "lsvq": "mos",
    "t2vqa-db": "mos",
}
FOLDER = "folder"
"""The layout whose columns are all named by options."""


@dataclass(frozen=True)
class Reading:
    """How a source is to be read: its layout (None: what its columns say), what its columns are called (`prompt`,
    `first`, `second`, `verdict`, or `file`, `score`, ...), its words for first, second and tie, and the sign between
    its columns.
    """

    layout: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    separator: str | None = None

    def __post_init__(self) -> None:
        known = [*LAYOUTS, *ALIASES, FOLDER]
        if self.layout is not None and self.layout not in known:
            raise ConfigError(f"unknown layout {self.layout!r} (known: {', '.join(known)})")
        if self.columns and self.layout not in (None, FOLDER):
            raise ConfigError(f"--column names the columns of --format {FOLDER}, not of {self.layout}")
        if unknown := set(self.words) - {"first", "second", "tie"}:
            raise ConfigError(f"--word {min(unknown)}: write first=WORD, second=WORD or tie=WORD")
        if self.separator is not None and len(self.separator) != 1:
            raise ConfigError(f"--separator {self.separator!r}: give a single sign")

    @property
    def candidates(self) -> dict[str, Layout]:
        """The layouts that a source may have, by name, the first that fits being taken. Raises `ConfigError`."""
        if self.layout == FOLDER or self.columns:
            return {FOLDER: self._worded(_folder(self.columns))}
        name = ALIASES.get(self.layout or "", self.layout)
        return {key: self._worded(known) for key, known in LAYOUTS.items() if name in (None, key)}

    def _worded(self, layout: Layout) -> Layout:
        if isinstance(layout, RatingLayout):
            return layout
        values = {"first": 1, "second": -1, "tie": 0}
        own = {word.strip(): values[who] for who, text in self.words.items() for word in text.split(",")}
        return replace(layout, words={**layout.words, **own})


def _folder(columns: Mapping[str, str]) -> Layout:
    pair = {"prompt", "first", "second", "verdict", "first_model", "second_model"}
    rating = {"prompt", "file", "score", "model"}
    kind = rating if "file" in columns else pair
    if unknown := set(columns) - kind:
        raise ConfigError(
            f"--column {min(unknown)}: the names are {', '.join(sorted(pair))}, or for ratings "
            f"{', '.join(sorted(rating))}"
        )

    def named(name: str) -> str:
        return columns.get(name, name)

    if kind is rating:
        scores = [name.strip() for name in columns.get("score", "").split(",") if name.strip()]
        known_by = (columns["prompt"],) if "prompt" in columns else ()
        return RatingLayout(
            file=columns["file"], prompt=named("prompt"), model=named("model"), scores=scores, known_by=known_by
        )
    verdicts = [name.strip() for name in named("verdict").split(",")]
    models = (named("first_model"), named("second_model"))
    words = _words("first", "second", "tie")
    return PairLayout(
        files=(named("first"), named("second")), verdicts=verdicts, words=words, prompt=named("prompt"), models=models
    )
