"""The cases of notebooks 09 and 10: a ticket, the learner's guess, the symptoms, the repair, and then the fault's name.

Nothing here shows the fault's name before the run is mended.
"""

from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from labkit.course import progress
from labkit.course.faults import CATALOGUE, breaking
from labkit.errors import UnknownName
from labkit.showing import counted, stable

if TYPE_CHECKING:
    from collections.abc import Callable

    import ipywidgets

    from labkit.course.faults.report import MendReport
    from labkit.workspace import Workspace

PROVIDER, TRUST, PERMISSIONS, BUCKET = "OIDC provider", "trust policy", "permissions", "bucket policy"
ACCOUNT, WEBHOOK, POD = "service account", "webhook", "pod"
PARTS = (PROVIDER, TRUST, PERMISSIONS, BUCKET, ACCOUNT, WEBHOOK, POD)
"""The parts of IRSA that a learner can name as the broken one."""


class Ticket(NamedTuple):
    """A fault, the part that it breaks, and what a user who suffers from it writes."""

    notebook: str
    fault: str
    part: str
    text: str


TICKETS = (
    Ticket(
        "09",
        "oidc-provider-deleted",
        PROVIDER,
        "Since noon every basket is empty, and we can't save new ones. We haven't touched cart for a week. All that we "
        "heard of: at noon the security team tidied up in the account.",
    ),
    Ticket(
        "09",
        "audience-copied-from-a-chat",
        PROVIDER,
        "The baskets are gone again. The platform team set everything up once more this morning, letter by letter as "
        "in their chat, and the values look right to us, too.",
    ),
    Ticket(
        "09",
        "trust-policy-names-another-namespace",
        TRUST,
        "We tried cart in a namespace named staging last week, and moved it back. Its pods run, nothing is red, and "
        "still it can't open its bucket.",
    ),
    Ticket(
        "09",
        "wildcard-is-compared-letter-by-letter",
        TRUST,
        "reports was to read the baskets as well, so another team let the whole namespace in. Now reports can't read "
        "them, and neither can cart.",
    ),
    Ticket(
        "10",
        "annotation-key-misspelt",
        ACCOUNT,
        "We lost cart's manifests and typed them again. kubectl took every line. cart starts, and says that it has no "
        "credentials.",
    ),
    Ticket(
        "10",
        "pod-without-its-service-account",
        POD,
        "Our new chart is much shorter, and cart comes up in seconds. Only the baskets don't open any more. The role "
        "is the same as ever.",
    ),
    Ticket(
        "10",
        "webhook-without-a-ca-bundle",
        WEBHOOK,
        "After last night's maintenance of the cluster, all that already ran still works. What started since then gets "
        "nothing from AWS. We changed nothing of ours.",
    ),
    Ticket(
        "10",
        "role-variable-given-by-hand",
        POD,
        "To be on the safe side, we wrote the role's ARN into cart ourselves. We see it in the pod, and the pod says "
        "that it has no credentials.",
    ),
    Ticket(
        "10",
        "bucket-policy-denies-the-role",
        BUCKET,
        "An audit asked us to keep till away from the baskets. Since somebody did, till is out, and so are we.",
    ),
    Ticket(
        "10",
        "keys-in-the-pod",
        POD,
        "Another team got cart to run on a laptop, and gave us what they had. In the cluster, AWS says that it doesn't "
        "know our key. We have no key.",
    ),
    Ticket(
        "10",
        "region-that-is-not-on",
        POD,
        "We want to be close to our new customers in Cape Town. Since our last change, AWS doesn't answer as it did.",
    ),
)


class Case:
    """A case: a ticket and its fault, which the learner guesses and repairs.

    In a running notebook, the learner's guess is a button, and the symptoms appear after it.
    """

    def __init__(self, lab: "Workspace", number: int, mended: "Callable[[], MendReport]"):
        """Put the fault of this case into the run, and ask AWS in the pod. An earlier fault is mended first.

        `mended` makes the report on the run. Raises `UnknownName` if no case has the number.
        """
        if number not in range(1, len(TICKETS) + 1):
            raise UnknownName("case", str(number), [str(each + 1) for each in range(len(TICKETS))])
        self.number, self._ticket, self._mended = number, TICKETS[number - 1], mended
        self._guess = ""
        if breaking.is_broken(lab) and breaking.mend(lab).was_broken:
            print("The earlier fault is mended first.")
        breaking.break_lab(lab, CATALOGUE[self._ticket.fault])
        self._symptoms = "\n".join(f"$ {command}\n{stable(answer)}" for command, answer in breaking.what_aws_says(lab))

    def __repr__(self) -> str:
        which = f'Which part is broken? {", ".join(PARTS)}\nYour guess: case.guess("…")'
        return f"{self._title}\n“{self._ticket.text}”\n\n{which}\n\nThe symptoms:\n{self._symptoms}"

    def _repr_html_(self) -> str:
        symptoms = f"<details><summary>The symptoms</summary>{self._symptoms_html}</details>"
        return f"{self._ticket_html}<p>Which part is broken? {', '.join(PARTS)}</p>{symptoms}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from labkit.course.widgets import live

        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self._repr_html_()}
        return bundle | live.drawn(self.panel)

    def panel(self) -> "ipywidgets.VBox":
        """Return the widget: the ticket, and a button for each part. After a guess, it shows the symptoms."""
        import ipywidgets

        from labkit.course.widgets import live, question
        from labkit.course.widgets.pages import Announced

        announced = Announced()
        ticket = ipywidgets.HTML(live.styled(f"{self._ticket_html}<p>Which part is broken? Guess before you look.</p>"))

        def press(part: str) -> None:
            said = self._noted(part)
            symptoms = ipywidgets.HTML(live.styled(f"<p>{escape(said)} The symptoms:</p>{self._symptoms_html}"))
            whole.children = [ticket, symptoms, announced]
            announced.text = f"{said} The symptoms: {self._symptoms}"

        buttons = [question.button(part, partial(press, part)) for part in PARTS]
        whole = ipywidgets.VBox([ticket, *buttons, announced])
        whole.add_class("labkit")
        return whole

    def guess(self, part: str) -> None:
        """Note which part the learner takes for broken. The first guess of a case counts.

        Raises `UnknownName` for a part that doesn't exist.
        """
        if part not in PARTS:
            raise UnknownName("part of IRSA", part, PARTS, next=f'case.guess("{PARTS[1]}")')
        print(self._noted(part))

    def _noted(self, part: str) -> str:
        if not self._guess:
            self._guess = part
            progress.kept("guessed", self._id, right=part == self._ticket.part)
        return f"Your guess is noted: {self._guess}."

    def mended(self) -> "MendReport":
        """Report whether the run is mended. If it is, print the fault's name, and how often it was guessed."""
        report = self._mended()
        if report:
            print(f"The fault was {self._ticket.fault}, in this part: {self._ticket.part}. {self._verdict}")
        return report

    @property
    def _verdict(self) -> str:
        if not self._guess:
            return "You made no guess."
        guesses = progress.guessed()
        so_far = f" So far you guessed {sum(guesses.values())} of {counted(len(guesses), 'case')}." if guesses else ""
        return f"You guessed {'it' if self._guess == self._ticket.part else self._guess}.{so_far}"

    @property
    def _id(self) -> str:
        return f"{self._ticket.notebook}-case-{self.number}"

    @property
    def _title(self) -> str:
        return f"Case {self.number}"

    @property
    def _ticket_html(self) -> str:
        return f"<p><strong>{self._title}</strong></p><blockquote>{escape(self._ticket.text)}</blockquote>"

    @property
    def _symptoms_html(self) -> str:
        return f"<pre><code>{escape(self._symptoms)}</code></pre>"
