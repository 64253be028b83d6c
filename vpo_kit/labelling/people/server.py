"""The page on which people label a set, and the few addresses behind it (extra ``server``).

Everything but the refusal needs the token: the first visit brings it in the address, a cookie keeps it. A video is
asked for by pair and side, A or B, so that neither an address nor a file name tells which member it is. There are two
tokens: the owner's also shows how everybody is getting on and ends the labelling.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from vpo_kit.errors import VpoError
from vpo_kit.labelling.agreement import alpha
from vpo_kit.labelling.people.answers import Answer, PeopleAnswers
from vpo_kit.labelling.people.division import Division
from vpo_kit.labelling.people.finish import annotators
from vpo_kit.labelling.people.questions import Survey, plain_name
from vpo_kit.net import serve
from vpo_kit.pages import templates
from vpo_kit.video import SUFFIXES

MAX_BODY_BYTES = 16 * 2**10
SECURITY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

Side = Literal["a", "b"]
Choice = Literal["a", "b", "tie"]
T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")


def _asking(annotator: str) -> str:
    """The name in an address. Raises 422."""
    try:
        return plain_name(annotator)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


Name = Annotated[str, AfterValidator(plain_name)]
Asking = Annotated[str, Depends(_asking)]


class Empty(BaseModel):
    """``POST /finish``."""

    model_config = ConfigDict(extra="forbid")


class Undo(Empty):
    """``POST /undo``. `key` is drawn by the page: a request sent again counts once."""

    key: str = Field(pattern=r"^[0-9a-f]{32}$")
    annotator: Name


class PostedComment(Undo):
    """``POST /comments``: what somebody wants to say of a pair."""

    pair: str
    text: str = Field(min_length=1, max_length=2000)


class PostedAnswer(Undo):
    """``POST /answers``: what is better in a segment as this annotator sees it."""

    pair: str
    segment: int = Field(ge=0)
    choice: Choice
    seconds: float = Field(ge=0, le=86400, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a server is told of its labelling.

    `rest` says what ending it does to pairs that are not answered throughout; `instructions` are shown to everybody;
    with `overlap` each pair is for so many people, without it for all. `token` is the owner's, `guests` everybody's.
    """

    token: str
    guests: str
    rest: str
    instructions: str = ""
    overlap: int | None = None


class _Desk:
    """One set, its answers and the people in front of it."""

    def __init__(self, survey: Survey, answers: PeopleAnswers, told: Told, finish: Callable[[], str]) -> None:
        self._survey = survey
        self._answers = answers
        self._told = told
        self._finish = finish
        known = {question.pair for question in answers.gold()}
        self._division = Division(survey, told.overlap, known) if told.overlap else None
        self._root = survey.path.resolve()
        # one browser may label several sets at once, and cookies do not know of ports
        self._cookie = f"vpo-label-{hashlib.sha256(told.token.encode()).hexdigest()[:12]}"
        self._page = templates.environment("vpo_kit.labelling.people").get_template("page.html").render()

    def _lets_in(self, token: str) -> bool:
        return serve.same(token, self._told.token) or serve.same(token, self._told.guests)

    def _is_owner(self, request: Request) -> bool:
        return serve.same(request.cookies.get(self._cookie, ""), self._told.token)

    def authorise(self, request: Request) -> None:
        """Raises 401 without the cookie; it runs before a byte of the body is read."""
        if not self._lets_in(request.cookies.get(self._cookie, "")):
            raise HTTPException(401, "wrong or no token", {"Connection": "close"})

    def own(self, request: Request) -> None:
        """Raises 403 for everybody but the owner."""
        self.authorise(request)
        if not self._is_owner(request):
            raise HTTPException(403, "only whoever started the labelling may do this", {"Connection": "close"})

    def page(self, request: Request, token: str | None = None) -> Response:
        """The page; with a token in the address, the cookie and the address without it."""
        if token is not None and self._lets_in(token):
            response = RedirectResponse("/", 303, PRIVATE)
            # lax: a link in a mail or a chat comes from another site, and "strict" would keep the cookie from the page
            # that it leads to; what changes something takes JSON, which no other site can send
            response.set_cookie(self._cookie, token, httponly=True, samesite="lax", max_age=30 * 86400)
            return response
        if token is not None or not self._lets_in(request.cookies.get(self._cookie, "")):
            text = "Wrong or no token: open the address that vpo label printed.\n"
            return PlainTextResponse(text, 401, {"Connection": "close"})
        return HTMLResponse(self._page, headers={**PRIVATE, "Content-Security-Policy": SECURITY})

    def tasks(self, request: Request, annotator: Asking) -> JSONResponse:
        """All pairs in order, with this annotator's answers; nothing about scores, strategies or members."""
        current = self._answers.current()
        mine = {a.question: self._shown(a) for a in current if a.annotator == annotator}
        others = {a.annotator for a in current} - {annotator}
        order = list(self._survey.pairs)
        if self._division:
            order = self._division.order(_kept(lambda: self._answers.arrived(annotator)))
        rows = [
            {
                "id": name,
                "prompt": pair.prompt,
                "fps": pair.fps,
                "frames": pair.shown[-1][1],
                "segments": self._survey.shown(name),
                "choices": [mine.get(question) for question in self._survey.questions[name]],
            }
            for name, pair in ((name, self._survey.pairs[name]) for name in order)
        ]
        body = {
            "annotator": annotator,
            "others": len(others),
            "rest": self._told.rest,
            "owner": self._is_owner(request),
            "dimensions": self._survey.settings.dimensions,
            "instructions": self._told.instructions,
            "closed": self._closed(annotator, current),
            "pairs": rows,
        }
        return JSONResponse(body, headers=PRIVATE)

    def _closed(self, annotator: str, current: Sequence[Answer]) -> list[str]:
        return sorted(self._division.closed(annotator, current)) if self._division else []

    def progress(self) -> JSONResponse:
        """How far everybody is, how well they agree so far, and what they wrote; for the owner alone."""
        people = [
            {
                "name": one.name,
                "answers": one.answers,
                "seconds": one.median_seconds,
                "gold": [one.gold_right, one.gold],
            }
            for one in annotators(self._answers, self._survey)
        ]
        current = [answer for answer in self._answers.current() if answer.question in self._survey.known]
        found = alpha((answer.question, answer.choice) for answer in current)
        seen = len({answer.question for answer in current})
        body = {"people": people, "alpha": found, "seen": seen, "questions": len(self._survey.known)}
        comments = [{"who": who, "pair": pair, "text": text} for who, pair, text in self._answers.comments()]
        return JSONResponse({**body, "comments": comments}, headers=PRIVATE)

    def video(self, pair: str, side: Side, annotator: Asking) -> Response:
        """One video of a pair by its side."""
        found = self._survey.pairs.get(pair)
        if found is None:
            raise HTTPException(404, "no such pair")
        second = (side == "b") != self._survey.swapped(annotator, pair)
        file = self._inside(found.second_file_name if second else found.first_file_name)
        if file is None:
            raise HTTPException(404, f"pair {pair}: a video is missing (vpo pair check)")
        kind = "video/webm" if file.suffix.lower() in (".webm", ".mkv") else "video/mp4"  # browsers that go by it
        return FileResponse(file, media_type=kind, headers=PRIVATE)

    def _inside(self, name: str) -> Path | None:
        """A regular video file whose links, if any, do not lead out of the set."""
        try:
            file = (self._root / name).resolve(strict=True)
            regular = stat.S_ISREG(file.stat().st_mode)
        except (OSError, RuntimeError):
            return None
        return file if regular and file.is_relative_to(self._root) and file.suffix.lower() in SUFFIXES else None

    async def answer(self, request: Request) -> dict[str, Any]:
        """Keep an answer. It is on disk when the reply goes out."""
        given = await _body(request, PostedAnswer)
        parts = self._survey.questions.get(given.pair, [])
        if given.segment >= len(parts):
            raise HTTPException(422, f"no segment {given.segment} of pair {given.pair!r}")
        swapped = self._survey.swapped(given.annotator, given.pair)
        answer = Answer(
            key=given.key,
            annotator=given.annotator,
            question=parts[given.segment],
            swapped=swapped,
            choice=meant(given.choice, swapped),
            seconds=given.seconds,
        )
        await run_in_threadpool(_kept, lambda: self._answers.add(answer))
        told = {"pair": given.pair, "segment": given.segment, "choice": given.choice}
        if self._division is None:
            return told
        current = await run_in_threadpool(_kept, self._answers.current)
        return {**told, "closed": self._closed(given.annotator, current)}

    async def comment(self, request: Request) -> dict[str, Any]:
        """Keep a comment on a pair. It is on disk when the reply goes out."""
        given = await _body(request, PostedComment)
        if given.pair not in self._survey.pairs:
            raise HTTPException(422, f"no pair {given.pair!r}")
        await run_in_threadpool(
            _kept, lambda: self._answers.comment(given.key, given.annotator, given.pair, given.text)
        )
        return {"pair": given.pair}

    async def undo(self, request: Request) -> dict[str, Any]:
        """Take this annotator's newest answer back; what holds then is in the reply, nulls where nothing was left."""
        wanted = await _body(request, Undo)
        taken = await run_in_threadpool(
            _kept, lambda: self._answers.undo(wanted.key, wanted.annotator, self._survey.known)
        )
        if taken is None:
            return {"pair": None, "segment": None, "choice": None}
        pair, question = taken.question.pair, taken.question
        holds = await run_in_threadpool(_kept, self._answers.current)
        left = [self._shown(a) for a in holds if (a.annotator, a.question) == (wanted.annotator, question)]
        return {
            "pair": pair,
            "segment": self._survey.questions[pair].index(question),
            "choice": left[0] if left else None,
        }

    async def finish(self, request: Request) -> dict[str, str]:
        """Write the labels and end the server."""
        await _body(request, Empty)
        return {"detail": await run_in_threadpool(_kept, self._finish)}

    def _shown(self, answer: Answer) -> Choice:
        return shown(answer.choice, self._survey.swapped(answer.annotator, answer.question.pair))


def shown(choice: int, swapped: bool) -> Choice:
    """A label of the set as an annotator sees it."""
    return "tie" if choice == 0 else "b" if (choice < 0) != swapped else "a"


def meant(choice: Choice, swapped: bool) -> int:
    """The label of the set that an annotator means."""
    return 0 if choice == "tie" else -1 if (choice == "b") != swapped else 1


def create_app(survey: Survey, answers: PeopleAnswers, told: Told, finish: Callable[[], str]) -> FastAPI:
    """The application; `finish` makes the answers the set's labels, ends the server, and says in a line what it did."""
    desk = _Desk(survey, answers, told, finish)
    app = FastAPI(title="vpo label", openapi_url=None, redirect_slashes=False)
    guard: Any = [Depends(desk.authorise)]
    owner: Any = [Depends(desk.own)]
    app.add_api_route("/", desk.page, methods=["GET"], response_model=None)
    app.add_api_route("/tasks", desk.tasks, methods=["GET"], dependencies=guard, response_model=None)
    app.add_api_route("/videos/{pair}/{side}", desk.video, methods=["GET"], dependencies=guard, response_model=None)
    app.add_api_route("/answers", desk.answer, methods=["POST"], dependencies=guard)
    app.add_api_route("/undo", desk.undo, methods=["POST"], dependencies=guard)
    app.add_api_route("/comments", desk.comment, methods=["POST"], dependencies=guard)
    app.add_api_route("/progress", desk.progress, methods=["GET"], dependencies=owner, response_model=None)
    app.add_api_route("/finish", desk.finish, methods=["POST"], dependencies=owner)
    return app


async def _body(request: Request, kind: type[T]) -> T:
    """A small JSON body. Another site's form cannot send one: browsers ask before they send this type elsewhere."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json", {"Connection": "close"})
    body = b"".join([chunk async for chunk in serve.chunks(request, MAX_BODY_BYTES)])
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise HTTPException(422, f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}") from error


def _kept(work: Callable[[], R]) -> R:
    """Raises 503 for what did not get on disk; the page tries again."""
    try:
        return work()
    except VpoError as error:
        raise HTTPException(503, " ".join(str(error).split())) from error
