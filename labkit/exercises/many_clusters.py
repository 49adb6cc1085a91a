"""Notebook 12: run one notebook for many clusters and roles. The report and the doctor judge its exercises."""

from typing import TYPE_CHECKING

from labkit.widgets.question import Answer, Question

if TYPE_CHECKING:
    from labkit.exercises.exercise import Exercise

EXERCISES: "tuple[Exercise, ...]" = ()

PREDICTIONS = (
    Question(
        "12-1",
        "Two clusters of one account, and one role name. What does the fleet do with these two rows?",
        (
            Answer(
                "It makes the role once, for both.", "A trust policy that admits both would have to name both issuers."
            ),
            Answer(
                "It refuses the file, and nothing runs.",
                "The second row would make the first row's role trust its own cluster instead.",
                right=True,
            ),
            Answer("The second row fails.", "The file alone shows it, so labkit says so before it makes anything."),
        ),
    ),
    Question(
        "12-2",
        "Two of the three rows have succeeded. You mend the third, and resume. Which rows run?",
        (
            Answer("All three: the file has changed.", "The file isn't what counts. Each row has a hash of its own."),
            Answer("The mended one.", "The others have succeeded, and nothing of theirs has changed.", right=True),
            Answer("The mended one and the other of its cluster.", "They share the provider, and it's there already."),
        ),
    ),
)

RECALL = (
    Question(
        "12-3",
        "Why does the first row of a cluster go alone?",
        (
            Answer("It registers the cluster's OIDC provider.", "The other rows of the cluster share it.", right=True),
            Answer(
                "To see whether the notebook works at all.",
                "Then it would be one row of the fleet, not of each cluster.",
            ),
            Answer("AWS allows one call at a time.", "AWS allows many. Rows of other clusters run beside it."),
        ),
    ),
    Question(
        "12-4",
        "Two rows are in one cluster. What does each need of its own?",
        (
            Answer(
                "A role and a namespace.",
                "A run's role admits only its own service account, and every run calls its pod my-pod.",
                right=True,
            ),
            Answer("A role and a bucket.", "Rows may read the same bucket."),
            Answer("An OIDC provider.", "A cluster has one in an account, and all its roles trust it."),
        ),
    ),
    Question(
        "12-5",
        "A colleague installs a newer labkit, and resumes a fleet that has succeeded. What runs?",
        (
            Answer("Nothing: every row has succeeded.", "It succeeded with another version of what runs."),
            Answer(
                "Every row.", "The version is in each row's hash, with the notebook and its parameters.", right=True
            ),
            Answer("The rows whose notebook prints something else now.", "Nobody knows that before the rows have run."),
        ),
    ),
    Question(
        "12-6",
        "The process that runs a row is killed. What does the report say of the row?",
        (
            Answer("It ran in another process.", "A row that began isn't run again by itself: half of it may exist."),
            Answer("Not run.", "It began, and whatever it made still exists."),
            Answer("Failed: worker lost.", "Nobody knows how far it got. --resume runs it again.", right=True),
        ),
    ),
    Question(
        "12-7",
        "The report of last month says that every row succeeded. Is every cluster right today?",
        (
            Answer("Yes.", "Somebody may have changed one by hand since then."),
            Answer("--resume tells.", "It compares the rows with their last run, and doesn't look at a cluster."),
            Answer("--doctor tells.", "It reads the clusters and the account as they are now.", right=True),
        ),
    ),
    Question(
        "12-8",
        "A row failed last night. Where do you see why?",
        (
            Answer(
                "In the report, and in the row's executed notebook.",
                "Both have the failed cell and AWS's message. The report adds what the doctor found.",
                right=True,
            ),
            Answer("Nowhere: run the row again.", "The record of the first run already holds the reason."),
            Answer("In the fleet file.", "It holds what you asked for, not what happened."),
        ),
    ),
)
