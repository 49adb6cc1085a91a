"""The lab: the only object that a notebook has to open."""

from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from itertools import chain
from shlex import quote
from typing import TYPE_CHECKING, Any

from labkit import course, steps, targets
from labkit.connection import Connection
from labkit.course import Check, Questions, capabilities, exercises, lessons, progress, review, shorten_errors
from labkit.doctor import Evidence, checks
from labkit.errors import LabError, answering
from labkit.run_parameters import Parameters
from labkit.showing import doing, say, show
from labkit.steps import pod as pods
from labkit.workspace import Workspace

if TYPE_CHECKING:
    from labkit.course import Calls, Capstone, Case, Examination, Journey, MendReport, TokenView, Watch, WhoGetsIn
    from labkit.doctor import Diagnosis


class Lab(Workspace):
    """AWS and a Kubernetes cluster, for one run: `Lab.open(**labkit.parameters())`.

    The methods prepare, check, show and clean up. You do the steps yourself, with boto3 and the Kubernetes client.
    """

    def __init__(self, parameters: Parameters, connection: Connection):
        super().__init__(parameters, connection)
        self._is_only_looked_at = False
        self._right: set[str] = set()  # the steps that were right at their last check
        self._hints = Counter[str]()
        self._seen = next((record["eventID"] for record in connection.trail()), None) if connection.trail else None

    @classmethod
    def open(cls, **values: Any) -> "Lab":
        """Open the lab that these parameters name. If it doesn't run, start it.

        Raises `LabError` if a parameter breaks its rule, or if the lab doesn't start.
        """
        shorten_errors()
        parameters = Parameters.checked(**values)
        with doing("Opening the lab"):
            connection = targets.target(parameters.target).up(parameters)
        if connection.note:
            print(connection.note)
        return cls(parameters, connection)

    @classmethod
    def look(cls, **values: Any) -> "Lab":
        """Open the lab only to look at it: nothing is created in your own account or cluster.

        On the target moto, start the lab if it doesn't run. If the role, the service account and the pod of this run
        are all missing there, take the steps up to and including `pod`. Raises `LabError`.
        """
        parameters = Parameters.checked(**values)
        lab = cls(parameters, targets.target(parameters.target).start_and_look(parameters))
        lab._is_only_looked_at = True
        with answering(parameters.namespace), redirect_stdout(StringIO()):
            evidence = lab.evidence()
            if lab.connection.is_embedded and not (
                evidence.aws.role or evidence.cluster.service_account or evidence.pod.document
            ):
                lab.ready(through="pod")
        return lab

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"the lab: {self.parameters.target}, {self.run}"

    # Prepare and clean up.

    def ready(self, *, before: str = "", through: str = "", account: str = "") -> None:
        """Prepare the lab for a step, and print what is ready. Pass exactly one of `before` and `through`.

        Args:
            before: the step that you will take next. The lab takes the earlier steps, and deletes the results of this
                step and of the later ones. On a cluster of the lab's own, it also deletes another run's service account
                and pod with the same names.
            through: the last step that the lab takes. The lab leaves the results of the later steps unchanged.
            account: another account (12 digits). The lab deletes this run's resources in that account, too.

        If the run still has a fault of `lab.break_` or `labkit break`, the lab mends the fault first. The lab
        also undoes what notebook 00 left changed on its own node: the hop limit, and a policy on the node's role.

        Raises:
            UnknownName: `before` or `through` is not a step.
            LabError: a step failed, or another run uses a name that the step needs.
        """
        if bool(before) == bool(through):
            raise LabError(
                "Pass exactly one of before= and through=.",
                where="lab.ready",
                next='lab.ready(before="iam_role")',
            )
        from labkit.course import breaking

        self._note()
        with answering(self.parameters.namespace), doing("Preparing the lab"):
            # Without this, an exercise of another notebook would leave its objects in this notebook's run.
            for _ in exercises.close_all(self) if self.connection.is_embedded else ():
                pass
            breaking.mend_what_was_left(self)
            course.restore_the_node(self)
            if account:
                steps.empty(self.in_account(account))
            for line in steps.ready_before(self, before) if before else steps.ready_through(self, through):
                print(line)

    def remove(self) -> None:
        """Delete the resources with this run's tag, the last step's first. Print the deleted and the kept resources."""
        self._note()
        with answering(self.parameters.namespace), doing("Deleting what this run made"):
            closed = exercises.close_all(self) if self.connection.is_embedded else ()
            for line in chain(closed, steps.remove(self)):
                print(line)

    def wait_until_running(self, pod: str, namespace: str = "") -> None:
        """Wait until the pod runs, and until STS lets it assume its role. Raises `PodDoesNotRun` with the reason.

        The default `namespace` is this run's.
        """
        pods.wait_until_running(self, pod, namespace)

    def delete_pod(self, pod: str, namespace: str = "") -> None:
        """Delete a pod, and wait until it's gone. A missing pod is fine. Raises `PodDoesNotRun` if it doesn't end."""
        pods.delete(self, pod, namespace or self.parameters.namespace)

    # Look.

    def evidence(self, *, probe: bool = True) -> Evidence:
        """Return evidence about this run: an object that reads AWS and the cluster when you ask it for a fact.

        With `probe`, this object may also run commands in the pod.
        """
        return Evidence(self.parameters, self.connection, probe=probe)

    def check(self, step: str, *, repair: bool = False) -> Check:
        """Check a step or an exercise. Return a report with the expected values beside the found values.

        With `repair`, the report shows the command that repairs each finding. Raises `UnknownName`.
        """
        if step[:1].isdigit() or step.partition("-")[0] in lessons.FILES:
            return self._check_exercise(step)
        self._note_the_doctor()
        module, evidence = steps.step(step), self.evidence()
        with answering(self.parameters.namespace), doing(f"Checking {module.TITLE}"):
            rows = checks.rows(step, evidence)
            # The report needs the step's own resource. The caller may lack permissions that only explain a fault.
            findings = checks.findings(step, evidence, [])
            check = Check(step, module.TITLE, rows, findings, lambda: self.check(step, repair=repair), repair)
        (self._right.add if check else self._right.discard)(step)
        progress.note_findings(finding.id for finding in findings)
        if check:
            progress.kept("step", step)
        return check

    def journey(self) -> "Journey":
        """Show the state of each step: "to do", "ready", "done", "checked and right" or "broken".

        "Checked and right" means that the step was right when this notebook last checked it with `lab.check`.
        """
        from labkit.course import journey

        self._note_the_doctor()
        with answering(self.parameters.namespace), doing("Looking at each step"):
            return journey.read_journey(self.evidence(), self._right, self.journey)

    def token(self, token: str) -> "TokenView":
        """Show a token's claims beside the values that the OIDC provider and the role's trust policy require.

        Raises `LabError` if the text isn't a token.
        """
        from labkit.course import token as tokens

        claims = tokens.parse_token(token)

        def compared() -> "TokenView":
            with answering(self.parameters.namespace):
                return tokens.compare_token(claims, self.evidence(), compared)

        return compared()

    def who_gets_in(self) -> "WhoGetsIn":
        """Simulate six callers. Show which of them the role's trust policy admits, and why.

        In a running notebook you can edit the policy and the callers' claims. If the cluster is the lab's own, a button
        writes the edited policy to the role.

        Raises `LabError` if the role can't be read.
        """
        from labkit.course import who_gets_in

        with answering(self.parameters.namespace):
            write = partial(who_gets_in.write_trust_policy, self) if self.takes_untagged else None
            return who_gets_in.simulate(self.evidence(), self.who_gets_in, write)

    def diagnose(self, *, probe: bool = False, repair: bool = False) -> "Diagnosis":
        """Find out why the pod doesn't get its role, and change nothing.

        With `repair`, the diagnosis shows repairs, too. With `probe`, also run commands in the pod: ask AWS for the
        pod's identity, and try its token.

        A lab that `Lab.look` opened differs:

        - The diagnosis covers several pods of the service account: the newest pod of each controller, such as a
          ReplicaSet, and each pod without a controller.
        - The role that the pods should get is `role_name` only if `role_name` isn't the default. Otherwise, the
          service account's run label names the role. Without such a label, the annotation names it. For further
          sources, see `Evidence.role_arn`.
        - The resources that a repair creates belong to a run only if the service account has a run label.

        Raises `LabError` if no call gets an answer. In a lab that `Lab.look` opened, also raises `LabError` if the
        service account's name seems misspelt.
        """
        from labkit import doctor
        from labkit.course import examination

        if self.connection.is_embedded:
            examination.note_the_doctor()
        with answering(self.parameters.namespace), doing("Looking for the cause"):
            if self._is_only_looked_at:
                is_named = self.parameters.role_name != Parameters().role_name
                diagnosis = doctor.examine_run(
                    self.parameters, self.connection, role_is_known=is_named, is_of_run=False, probe=probe
                )
            else:
                diagnosis = doctor.examine(self.evidence(probe=probe))
            if not diagnosis.looked:
                raise diagnosis.unread[0]
        progress.note_findings(finding.id for finding in diagnosis.findings)
        return replace(diagnosis, repair=repair)

    # Exercises and questions.

    def exercise(self, id: str) -> str:
        """Open an exercise. Return the name of the exercise's namespace, which is also the name of its role.

        This deletes the resources of an earlier try, and creates the exercise's resources without the solution.
        Raises `UnknownName`. Raises `LabError`, and changes nothing, if the target isn't moto.
        """
        opened = exercises.by_id(id)
        capabilities.require_exercises(self)
        with answering(opened.name), doing(f"Opening exercise {id}"):
            opened.open(self)
        progress.kept("opened", id)
        print(f"Exercise {id} is open: {opened.title}.")
        return opened.name

    def hint(self, id: str) -> None:
        """Print an exercise's next hint; after the last hint, the first one again. Raises `UnknownName`."""
        hints = exercises.by_id(id).hints
        number = self._hints[id] % len(hints)
        self._hints[id] += 1
        progress.kept("hint", id)
        print(f"Hint {number + 1} of {len(hints)}: {hints[number]}")

    def predict(self, id: str) -> Questions:
        """Show a question. Answer the question before you run the next cell. Raises `UnknownName`."""
        return Questions("Predict first", [lessons.prediction(id)], progress.answered)

    def recall(self, notebook: str) -> Questions:
        """Ask the questions at the end of the notebook with this number, such as 02. Raises `UnknownName`."""
        return Questions("What do you remember?", lessons.recall(notebook), progress.answered)

    def review(self, notebook: str) -> Questions:
        """Ask two questions from the notebooks before this one, such as 02. Raises `UnknownName`."""
        return review.before(notebook)

    def progress(self) -> "progress.Progress":
        """Show what you've done so far in your copies of the notebooks: steps, exercises, hints, questions."""
        return progress.read()

    def help(self, *, done: bool = False) -> None:
        """Raise your hand in a workshop. The leader's board shows it. With `done`, take your hand down."""
        print(progress.raised(up=not done))

    def examination(self, *, again: bool = False) -> "Examination":
        """Continue this run's examination, or begin a new one: ten random tasks, one after the other.

        With `again`, always begin a new one. It says how many you have begun. Raises `LabError`, and changes nothing,
        if the target isn't moto.
        """
        from labkit.course import Examination

        capabilities.require_exercises(self)
        with answering(self.parameters.namespace):
            return Examination(self, again=again)

    def capstone(self, *, again: bool = False) -> "Capstone":
        """Open the shop of notebook 97, which Jupyter shows as its brief. With `again`, build another one.

        Raises `LabError`, and changes nothing, if the target isn't moto.
        """
        from labkit.course import Capstone

        capabilities.require_exercises(self)
        return Capstone(self, again=again)

    def _check_exercise(self, id: str) -> Check:
        judged = exercises.by_id(id)
        capabilities.require_exercises(self)
        with answering(judged.name), doing(f"Checking exercise {id}"):
            check = Check(id, f"exercise {id}, {judged.title}", judged.rows(self), [], lambda: self.check(id))
        progress.kept("tried", id, right=bool(check))
        return check

    # Break and mend.

    def to_break(self) -> "Lab":
        """Return this lab. Raises `LabError` if the cluster isn't the lab's own: faults may hurt other people."""
        capabilities.require_own_cluster(self)
        return self

    def break_(self, fault: str = "", *, seed: int | None = None) -> None:
        """Put a fault into the run. Print what happened, and what AWS now answers in the pod.

        Without `fault`, choose a random fault and don't print its name; the same `seed` chooses the same fault. An
        earlier fault is mended first. Raises `LabError`, also if the cluster isn't the lab's own.
        """
        from labkit.course import breaking, faults

        chosen = faults.chosen(fault, seed)
        capabilities.require_own_cluster(self)
        self._note()
        with answering(self.parameters.namespace), doing("Breaking one thing, and asking AWS in the pod"):
            breaking.break_and_print(self, chosen, is_named=bool(fault))

    def case(self, number: int) -> "Case":
        """Put a fault into the run, and return its ticket: guess, repair, then `mended`. Raises `UnknownName`."""
        capabilities.require_own_cluster(self)
        self._note()
        with answering(self.parameters.namespace), doing(f"Opening case {number}"):
            return course.Case(self, number, self.mended)

    def mended(self) -> "MendReport":
        """Report whether the run is mended, and which objects are still broken or left behind.

        `diagnose` says why an object is broken. Raises `LabError` if the run has no fault.
        """
        from labkit.course import breaking

        capabilities.require_own_cluster(self)
        with answering(self.parameters.namespace):
            if breaking.is_broken(self):
                say("Asking AWS in the pod")
            return course.mend_report(self)

    def mend(self) -> None:
        """Mend all faults, so that the run is exactly as before the first fault. Print the mended objects."""
        from labkit.course import breaking

        capabilities.require_own_cluster(self)
        self._note()
        with answering(self.parameters.namespace), doing("Mending the run"):
            print(breaking.mend(self) if breaking.is_broken(self) else "Nothing is broken in this run.")

    def fetch(self, url: str) -> Any:
        """Fetch a URL of the cluster's public issuer, as STS does, and return the JSON. Raises `LabError`."""
        if self.connection.fetch is None:
            raise LabError("This target fetches nothing.", where="lab.fetch", next=f"curl {quote(url)}")
        return self.connection.fetch(url)

    def show(self, thing: Any, command: str = "") -> None:
        """Show a text, a document, an answer of boto3 or an object of Kubernetes.

        Placeholders replace secrets and random ids. Unless LABKIT_LIVE=1 is set, they also replace other values that
        differ from run to run. With `command`, show the command first, and `thing` as the command's answer.
        """
        show(thing, command)

    def trail(self, *, event: str = "", who: str = "", decision: str = "", last: int = 0) -> "Calls":
        """Show the calls to AWS since the notebook opened this lab, the oldest first.

        Calls of other clusters' pods are left out.

        Args:
            event: only calls with this name, such as `AssumeRoleWithWebIdentity`.
            who: only calls by this role, service account or user.
            decision: only calls with this decision: `allowed`, or the error's code.
            last: the number of newest calls to show; 0: all.

        If the target records no calls, show how to find them in AWS CloudTrail.
        """
        from labkit.course import trail

        if no_trail := capabilities.no_trail(self):
            return trail.NoCalls([], no_trail)
        return trail.calls(self.connection, self._seen).only(event=event, who=who, decision=decision, last=last)

    def watch(self) -> "Watch":
        """Show the calls to AWS as arrows between you, the pod and AWS. A running notebook adds each new call.

        If the target records no calls, show how to find them in AWS CloudTrail.
        """
        from labkit.course import Calls, Watch

        return Watch(
            self.connection.trail,
            self._seen,
            lambda record: bool(Calls([record]).of_issuer(self.provider_arn).records),
            capabilities.no_trail(self),
        )

    @property
    def clock(self) -> Any:
        """The lab's clock: `lab.clock.advance(hours=2)`, `lab.clock.reset()`.

        Raises `LabError` if the target has no clock of its own.
        """
        self.needs("clock")
        return self.connection.clock

    def now(self) -> datetime:
        """The time of AWS and the cluster, in UTC."""
        return datetime.fromtimestamp(self.connection.now(), UTC)

    def has(self, capability: str) -> bool:
        """Return whether the target has this capability: `if lab.has("clock"):`. If not, print a message about it."""
        if capabilities.has(self, capability):
            return True
        print(f"{capabilities.lacks(self, capability)} This cell shows it on moto.")
        return False

    def needs(self, capability: str) -> "Lab":
        """Return this lab. Raises `LabError` if the target doesn't have this capability."""
        capabilities.require(self, capability)
        return self

    def _note(self) -> None:
        from labkit.course import examination

        if self.connection.is_embedded:
            examination.note_the_lab(self)

    def _note_the_doctor(self) -> None:
        from labkit.course import examination

        if self.connection.is_embedded:
            examination.note_the_doctor(self)

    def close(self) -> None:
        """Close the connections to the cluster. The lab keeps running; `labkit down` ends it."""
        self.connection.close()
