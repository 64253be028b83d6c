"""People as labeller: a page that asks them until somebody ends it, then their answers as labels."""

from __future__ import annotations

import importlib.util
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar

from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.labelling.answers import FOLDER
from vpo_kit.labelling.base import Labeller, Surroundings, alone
from vpo_kit.labelling.people import finish
from vpo_kit.labelling.people.answers import PeopleAnswers
from vpo_kit.labelling.people.questions import People, PeopleLabelling, Survey, read_gold
from vpo_kit.pairing import store
from vpo_kit.pairing.origins import UNNAMED
from vpo_kit.pairing.settings import Cutting
from vpo_kit.pairing.store import PairSet

CONNECTIONS = 128  # a browser may keep six open
MAX_INSTRUCTIONS = 8000
FLAWS = """Flaws to look for:
- limbs, hands or faces that bend, melt or have the wrong number of parts
- things that appear, vanish, merge or change their kind or colour
- flicker, jumps between frames, blur that comes and goes
- motion against gravity or without a cause; sliding feet; a frozen picture
- something that was asked for and is missing"""
GUIDE = f"""Watch both videos of a segment, then say which one you would rather keep. Say tie if you cannot tell.

{FLAWS}"""
STUDY_GUIDE = f"""Watch both videos, then answer each question about them by itself. Say same if you cannot tell.
- quality: which looks better, picture by picture
- motion: which moves better: more of what should move, and as it would
- text: which shows more of what the text asks for

{FLAWS}"""


class ByPeople(Labeller):
    """Whoever opens the page; with ``finish`` nobody is asked, and the answers so far become the labels."""

    Config: ClassVar[type[Cutting]] = PeopleLabelling

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for name in () if config.finish else ("uvicorn", "fastapi"):
            if not _installed(name):
                raise ConfigError(f"vpo label --with people needs {name}: pip install 'vpo-kit[server]'")

    def label(self, found: PairSet, around: Surroundings) -> PairSet:
        alone(around, "people", "start it without accelerate or torchrun")
        # nothing but what was given: the file of answers knows the rest
        fixed = self.config.model_dump(include=self.config.model_fields_set & set(People.model_fields))
        with closing(PeopleAnswers(found.path, create=not self.config.finish, say=around.say)) as answers:
            answers.settle(fixed)
            if not self.config.finish:
                self._serve(found, answers, around.say)
            around.say(self._finish(found.path, answers))
        return store.read(found.path)

    def _serve(self, found: PairSet, answers: PeopleAnswers, say: Callable[[str], None]) -> None:
        """Serve the page until Ctrl-C or its own finish key."""
        import uvicorn

        from vpo_kit.labelling.people import server
        from vpo_kit.net import serve

        path, settings = found.path, answers.settle({})
        if self.config.gold is not None:
            answers.set_gold(read_gold(self.config.gold, Survey(found, settings)))
        survey = Survey(found, settings, answers.gold())
        token, guests = (_token(path / FOLDER / name) for name in ("token", "guests"))
        told = server.Told(
            token=token,
            guests=guests,
            rest=unanswered(found, drop=self.config.unanswered == "drop"),
            instructions=_instructions(self.config.instructions, settings.dimensions),
            overlap=self.config.overlap,
        )
        with serve.listen(self.config.host, self.config.port) as listener:

            def end() -> str:
                said = self._finish(path, answers)
                running.should_exit = True
                return said

            app = server.create_app(survey, answers, told, end)
            running = uvicorn.Server(serve.settings(app, CONNECTIONS))
            questions = sum(len(parts) for parts in survey.questions.values())
            what = "questions" if settings.dimensions else "segments"
            say(f"{path}: {len(survey.pairs)} pairs, {questions} {what}; answers are kept in {path / FOLDER}")
            say("Ctrl-C here, or F on your page, ends labelling: the answers become the set's labels")
            address = serve.address(self.config.host, listener)
            say(f"{address}/?token={token}")
            say(f"for the others, who cannot end it: {address}/?token={guests}")
            with suppress(KeyboardInterrupt):
                running.run(sockets=[listener])

    def _finish(self, path: Path, answers: PeopleAnswers) -> str:
        drop = self.config.unanswered == "drop"
        done = finish.finish(path, answers, drop=drop, least_gold=self.config.least_gold)
        return describe(path, done, drop=drop)


def describe(path: Path, done: finish.Finished, *, drop: bool = False) -> str:
    """One line on what a finish did."""
    left_out = f"; without {', '.join(done.failed)}, who failed known questions" if done.failed else ""
    stale = f"; {done.stale} answers are about videos or segments that the set no longer has" if done.stale else ""
    if not done.labelled:
        return f"{path}: no pair is answered in all of its segments, the labels stay as they are{left_out}{stale}"
    people = f"{done.annotators} annotator{'s' if done.annotators != 1 else ''}"
    rest = done.pairs - done.labelled
    left = (
        "have no labels"
        if drop or not done.others
        else (f"keep the labels they had ({done.others}): --set data.labeller=people trains on people's alone")
    )
    kept = f"; the other {rest}, {done.partly} of them answered in part, {left}" if rest else ""
    return f"{path}: {done.labelled} of {done.pairs} pairs labelled by {people}{kept}{left_out}{stale}"


def unanswered(found: PairSet, *, drop: bool) -> str:
    """One sentence on what becomes of pairs that are not answered throughout, for whoever ends the labelling."""
    which = "Pairs that are not answered in all segments"
    known = sorted({pair.labeller or UNNAMED for pair in found.pairs if pair.label is not None})
    if drop or not known:
        return f"{which} have no labels then."
    return f"{which} keep the labels that they have (by {', '.join(known)})."


def _instructions(path: Path | None, dimensions: Sequence[str]) -> str:
    """The text for everybody: that of a file, or our own. Raises `DataError`."""
    if path is None:
        return STUDY_GUIDE if dimensions else GUIDE
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--instructions {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not 0 < len(text) <= MAX_INSTRUCTIONS:
        raise DataError(f"--instructions {path}: give a text of 1 to {MAX_INSTRUCTIONS} letters")
    return text


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # there, but without saying from where
        return False


def _token(path: Path) -> str:
    """The set's own token, the same at each start: pages that are open go on with a server that was started again."""
    try:
        known = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if re.fullmatch(r"[\w-]{32}", known, re.ASCII):
            return known
        token = secrets.token_urlsafe(24)
        path.touch(0o600)
        path.chmod(0o600)
        path.write_text(f"{token}\n", encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"cannot keep {path}: {getattr(error, 'strerror', None) or error}") from error
    return token
