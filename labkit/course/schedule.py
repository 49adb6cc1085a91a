"""When each answered question comes back, by FSRS.

A wrong one is due after ten minutes. A right one is due when one learner in ten would have forgotten it.
https://github.com/open-spaced-repetition/py-fsrs
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from labkit.course import progress

WRONG_AGAIN_AFTER = timedelta(minutes=10)


def read(progress_file: Path | None = None) -> dict[str, datetime]:
    """Return when each answered question is due, by its id. Nothing but the answers is stored.

    An answer before the question is due doesn't count: after a wrong answer, a learner tries the others.
    """
    answers = [each for each in progress.events(progress_file) if each and each["what"] in ("answered", "reviewed")]
    if not answers:
        return {}
    from fsrs import Card, Rating, Scheduler

    scheduler = Scheduler(learning_steps=[WRONG_AGAIN_AFTER], enable_fuzzing=False)
    cards: dict[str, Card] = {}
    for event in answers:
        try:
            at = datetime.fromtimestamp(event["at"], UTC)
            card = cards.get(event["id"]) or Card(card_id=len(cards), due=at)
            if at >= card.due:
                rating = Rating.Good if event["right"] else Rating.Again
                cards[event["id"]] = scheduler.review_card(card, rating, at)[0]
        except (ValueError, OverflowError, OSError):
            continue  # not a time
    return {id: card.due for id, card in cards.items()}
