"""Notebook 12: run one notebook for many clusters and roles. The fleet's report and the doctor judge its exercises."""

from typing import TYPE_CHECKING

from labkit.course.widgets.question import Answer, Question, Right

if TYPE_CHECKING:
    from labkit.course.exercises.exercise import Exercise

EXERCISES: "tuple[Exercise, ...]" = ()

PREDICTIONS = (
    Question(
        "12-1",
        "Two rows have the same role name, and are in two clusters of one account. What does the fleet do?",
        Answer(
            "It makes the role once, for both rows.",
            "A run's trust policy names only one issuer, so the role can't admit pods of both clusters.",
        ),
        Right(
            "It refuses the file, and nothing runs.",
            "The second row would overwrite the trust policy, and the role would refuse the first row's pod.",
        ),
        Answer("The second row fails.", "labkit sees the conflict in the file, before it makes anything."),
    ),
    Question(
        "12-2",
        "Two of the three rows have succeeded. You correct the row that failed, and resume. Which rows run?",
        Answer("All three: the file has changed.", "labkit doesn't compare the whole file. It compares each row."),
        Right("The corrected row.", "The other rows have succeeded, and they haven't changed."),
        Answer(
            "The corrected row and the other row of its cluster.",
            "Both rows use the cluster's provider, but the provider exists already.",
        ),
    ),
)

RECALL = (
    Question(
        "12-3",
        "The first row of a cluster runs before the cluster's other rows. Why?",
        Right("It registers the cluster's OIDC provider.", "The cluster's other rows use the same provider."),
        Answer(
            "To see whether the notebook works at all.",
            "A test needs only one row of the whole fleet. But each cluster has its own first row.",
        ),
        Answer("AWS allows one call at a time.", "AWS allows many. Rows of other clusters run at the same time."),
    ),
    Question(
        "12-4",
        "Two rows are in one cluster. What must be different in the two rows?",
        Right(
            "The role and the namespace.",
            "A run's role admits only the run's own service account, and every run calls its pod my-pod.",
        ),
        Answer("The role and the bucket.", "Rows may read the same bucket."),
        Answer(
            "The OIDC provider.",
            "A cluster has only one provider in an account. The roles of all its pods trust this provider.",
        ),
    ),
    Question(
        "12-5",
        "Every row of a fleet has succeeded. A colleague installs a newer labkit, and resumes. What runs?",
        Answer("Nothing: every row has succeeded.", "The rows succeeded with another version of labkit."),
        Right("Every row.", "Each row's hash covers labkit's version, the notebook and the parameters."),
        Answer("The rows with changed outputs.", "labkit can't know the new outputs before the rows have run."),
    ),
    Question(
        "12-6",
        "The process that runs a row is killed. What does the report say about the row?",
        Answer(
            "It ran again in another process.",
            "labkit doesn't automatically run such a row again: some of its resources may exist.",
        ),
        Answer("Not run.", "The row began, and the resources that it made still exist."),
        Right("Failed: worker lost.", "Nobody knows how far the row got. --resume runs it again."),
    ),
    Question(
        "12-7",
        "The report of last month says that every row succeeded. Is every cluster right today?",
        Answer("Yes.", "Someone may have changed a cluster by hand since then."),
        Answer("--resume tells you.", "It compares the rows with their last run. It doesn't look at the clusters."),
        Right("--doctor tells you.", "It reads the clusters and the account as they are now."),
    ),
    Question(
        "12-8",
        "A row failed last night. Where do you see why?",
        Right(
            "In the report, and in the row's executed notebook.",
            "Both have the failed cell and AWS's message. The report also has the doctor's findings.",
        ),
        Answer("Nowhere: run the row again.", "The record of the first run already holds the reason."),
        Answer("In the fleet file.", "The file says what should run, not what happened."),
    ),
)
