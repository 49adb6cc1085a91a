"""Questions that come back: those that were wrong or are due, and new ones from earlier notebooks."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path

from labkit.course import lessons, progress, schedule
from labkit.course.lessons import Answer, Question, TokenQuestion
from labkit.course.widgets import who_gets_in
from labkit.course.widgets.question import AnyQuestion, Questions
from labkit.showing import stable

IN_A_NOTEBOOK = 2
AT_ONCE = 5
"""The questions that take about two minutes."""
AUDIENCE = "sts.amazonaws.com"
AS_PODS_DO = "sts:AssumeRoleWithWebIdentity"
HOST = who_gets_in.EXAMPLE
ANOTHER = HOST[:-32] + HOST[:-33:-1]
CREDENTIALS = "credentials of the role"
ANSWERS = (CREDENTIALS, "AccessDenied", "InvalidIdentityToken", "ExpiredTokenException")


def before(notebook: str, progress_file: Path | None = None) -> Questions:
    """Return two questions from the notebooks before this one, such as 02.

    Due questions come first, the longest due at the beginning, and then new ones. Raises `UnknownName`.
    """
    this = lessons.file(notebook)
    numbers = [number for number, file in lessons.FILES.items() if file < this]
    comes_back = schedule.read(progress_file)
    known = {each.id: each for number in numbers for each in bank(number)}
    unseen = [[each for each in bank(number) if each.id not in comes_back] for number in reversed(numbers)]
    new = (each for turn in zip_longest(*unseen) for each in turn if each)  # one from each notebook in turn
    drawn = [*_due(known, comes_back), *new][:IN_A_NOTEBOOK]
    title = "Do you still know? Two questions from earlier notebooks" if drawn else "Nothing is due."
    return Questions(title, drawn, _reviewed, folded=True)


def due(progress_file: Path | None = None) -> list[AnyQuestion]:
    """Return the questions that are due, the longest due at the beginning."""
    return _due({each.id: each for number in lessons.FILES for each in bank(number)}, schedule.read(progress_file))


def of_all() -> Questions:
    """Return the questions that are due, five at most."""
    questions = due()[:AT_ONCE]
    return Questions("Do you still know?" if questions else "Nothing is due.", questions, _reviewed)


@cache
def bank(notebook: str) -> Sequence[AnyQuestion]:
    """Return the questions of this notebook that can come back. Raises `UnknownName` and `LabError`."""
    more = lessons.for_review(notebook)
    tokens = [_of_token(each) for each in more.tokens]
    return [each for each in chain(*zip_longest(more.open, tokens), more.recall, lessons.recall(notebook)) if each]


def _reviewed(question: str, right: bool) -> None:
    progress.kept("reviewed", question, right=right)


def _due(known: Mapping[str, AnyQuestion], comes_back: Mapping[str, datetime]) -> list[AnyQuestion]:
    now = datetime.now(UTC)
    ids = [id for id, at in comes_back.items() if id in known and at <= now]
    return [known[id] for id in sorted(ids, key=comes_back.__getitem__)]


def _of_token(question: TokenQuestion) -> Question:
    """Return the question with its answers. The code of the emulated STS decides which one is right."""
    verdict = _verdict(question)
    code = CREDENTIALS if verdict.admitted else verdict.reason.partition(":")[0]
    why = f"{who_gets_in.short(stable(verdict.reason)).rstrip('.')}. {question.why}"
    answers = [Answer.model_validate({"right" if each == code else "wrong": each, "why": why}) for each in ANSWERS]
    condition = {
        operator: {key if ":" in key else f"…:{key}": value for key, value in keys.items()}
        for operator, keys in question.condition.items()
    }
    action = "" if question.action == AS_PODS_DO else f" allows {question.action}, and"
    of_provider = "" if question.client_ids == (AUDIENCE,) else f" The provider's client id: {question.client_ids[0]}."
    expiry = f", and it expired {-question.minutes} minutes ago" if question.minutes < 0 else ""
    issuer = " Another cluster's issuer signed it, which isn't registered." if question.another_cluster else ""
    text = (
        f"A role's trust policy{action} has the condition {json.dumps(condition, ensure_ascii=False)}.{of_provider} "
        f"A token has the sub {question.sub} and the aud {question.aud}{expiry}.{issuer} What does STS answer?"
    )
    return Question.model_construct(id=question.id, text=text, answers=tuple(answers))


def _verdict(question: TokenQuestion) -> who_gets_in.Verdict:
    condition = {
        operator: {key if ":" in key else f"{HOST}:{key}": value for key, value in keys.items()}
        for operator, keys in question.condition.items()
    }
    simulation = who_gets_in.example(time.time)
    policy = json.loads(simulation.policy)
    policy["Statement"][0] |= {"Action": question.action, "Condition": condition}
    issuer = "https://" + (ANOTHER if question.another_cluster else HOST)
    caller = who_gets_in.SimulatedCaller("the token", issuer, question.sub, question.aud, question.minutes)
    registered = {f"https://{HOST}": question.client_ids}
    (verdict,) = replace(simulation, policy=json.dumps(policy), callers=[caller], client_ids=registered.get).verdicts()
    return verdict
