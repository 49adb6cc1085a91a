"""Notebook 10: a pod of one account reads a bucket of another account."""

import json
from uuid import uuid4

from labkit import documents
from labkit.course.exercises.asking import ALLOWED, admits, call, credentials, newcomers, refuses
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.steps import bucket, iam_role, oidc_provider
from labkit.workspace import Workspace

KEY = "hello.txt"


def _role_over_there_without_its_provider(place: Workspace) -> None:
    other = _other(place)
    make_role(other)
    for name in ("cart", "till"):
        make_account(place, name, {documents.ROLE_ANNOTATION: other.role_arn})


def _bucket_over_there_without_a_policy(place: Workspace) -> None:
    oidc_provider.ensure(place)
    other, name = _other(place).aws, place.parameters.namespace
    bucket.create(other, name)
    other.client("s3").put_object(Bucket=name, Key=KEY, Body=b"hello")
    for each in (place, _till(place)):
        _role_that_may_use_the_bucket(each, name)
        make_account(place, each.parameters.service_account, {documents.ROLE_ANNOTATION: each.role_arn})


def _other(place: Workspace) -> Workspace:
    return place.in_account(str(place.connection.other_account))


def _till(place: Workspace) -> Workspace:
    of_till = {"service_account": "till", "role_name": f"{place.parameters.role_name}-till"}
    return Workspace(place.parameters.model_copy(update=of_till), place.connection)


def _role_that_may_use_the_bucket(place: Workspace, name: str) -> None:
    make_role(place)
    statement = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"]}
    statement["Resource"] = f"arn:{place.connection.partition}:s3:::{name}/*"
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    place.aws.client("iam").put_role_policy(
        RoleName=place.parameters.role_name, PolicyName="bucket", PolicyDocument=document
    )


def _cart_is_admitted_over_there(place: Workspace) -> list[Comparison]:
    arn = _other(place).role_arn
    return [
        admits(place, role_arn=arn),
        refuses(place, "till", role_arn=arn),
        refuses(place, audience="vault", role_arn=arn, code="InvalidIdentityToken"),
        *newcomers(place, role_arn=arn),
    ]


def _cart_alone_reads(place: Workspace) -> list[Comparison]:
    till, name = _till(place), place.parameters.namespace

    def row(who: Workspace, what: str, operation: str, expected: str) -> Comparison:
        answer = call(who, "s3", operation, given=credentials(who), Bucket=name, Key=KEY)
        return Comparison(f"{who.parameters.service_account}: {what}", expected, answer, answer.startswith(expected))

    return [
        row(place, "read", "get_object", ALLOWED),
        row(place, "write", "put_object", "AccessDenied"),
        row(till, "read", "get_object", "AccessDenied"),
        *_read_by_a_new_role(place, name),
    ]


def _read_by_a_new_role(place: Workspace, name: str) -> list[Comparison]:
    """Return a row, marked as wrong, if the bucket's policy also lets a new role of this account read."""
    role = f"{place.parameters.role_name}-{uuid4().hex[:4]}"
    new = Workspace(place.parameters.model_copy(update={"role_name": role}), place.connection)
    _role_that_may_use_the_bucket(new, name)
    try:
        answer = call(new, "s3", "get_object", given=credentials(new), Bucket=name, Key=KEY)
    finally:
        iam_role.delete(new.aws.client("iam"), role)
    what = "a role of this account, created just now: read"
    return [Comparison(what, "AccessDenied", answer, False)] if answer == ALLOWED else []


EXERCISES = (
    Exercise(
        "10-a",
        "let cart become its role in account B",
        _role_over_there_without_its_provider,
        _cart_is_admitted_over_there,
        "The error begins with InvalidIdentityToken. Is it about the token, or about the trust policy?",
        "STS looks for the provider in the role's account. Which providers does account B have?",
        'Call iam_b.create_open_id_connect_provider(Url=lab.issuer, ClientIDList=["sts.amazonaws.com"]).',
        in_two_accounts=True,
    ),
    Exercise(
        "10-b",
        "let cart, and nobody else, read the bucket of account B",
        _bucket_over_there_without_a_policy,
        _cart_alone_reads,
        "The error says which kind of policy doesn't allow the call. Which account has that policy?",
        "The bucket needs a policy with a Principal. If the Principal is account A, the policy admits every role "
        "of A whose own policies allow the call.",
        "Allow s3:GetObject on arn:aws:s3:::exercise-10-b/* to the Principal "
        '{"AWS": "arn:aws:iam::123456789012:role/exercise-10-b"}.',
        in_two_accounts=True,
    ),
)

PREDICTIONS = (
    Question(
        "10-1",
        "Account A has an OIDC provider for the cluster. The role is in account B. What does STS answer the pod?",
        Answer("It admits the pod.", "A's provider doesn't count for a role in B."),
        Right(
            "InvalidIdentityToken.",
            "STS looks for the provider in the role's account, and B has no provider for this issuer.",
        ),
        Answer("AccessDenied.", "That's the answer if the trust policy refuses. Here B has no provider for the token."),
    ),
    Question(
        "10-2",
        "AmazonS3ReadOnlyAccess allows my-role to read every bucket. Can my-pod read the bucket of account B?",
        Answer("Yes: the policy says Resource *.", "Account A can't give away what belongs to account B."),
        Right(
            "No: account B has to allow it, too.",
            "Across accounts, the role's policy and the bucket's policy must both allow the call.",
        ),
        Answer(
            "No: S3 never answers another account.",
            "S3 answers another account if the bucket's policy allows the call.",
        ),
    ),
)

RECALL = (
    Question(
        "10-3",
        "You register the cluster's issuer in account B. What does B trust now?",
        Answer("A role of account A.", "The pod needs no role of A: it becomes a role of B directly."),
        Right(
            "The cluster's tokens.",
            "With them, a service account of A's cluster can become a role of B, if the role's trust policy names it.",
        ),
        Answer("A key of account A's administrator.", "No AWS key signs the exchange: the token is the proof."),
    ),
    Question(
        "10-4",
        "An error says: not authorized to perform: sts:AssumeRole on resource: … The error gives no reason. "
        "Which account's policy is wrong?",
        Answer(
            "B's trust policy.",
            "B's trust policy may be wrong. But the message is the same if A's role lacks the permission.",
        ),
        Answer(
            "A's permissions.", "A's permissions may be wrong. But the message is the same if B's trust policy refuses."
        ),
        Right(
            "The message doesn't say.",
            "Look at the role's permissions in A and at the trust policy in B: both must allow the call.",
        ),
    ),
    Question(
        "10-5",
        "An error ends with: because no resource-based policy allows the s3:GetObject action. Who has to change what?",
        Right("Account B: the bucket's policy.", "The resource is the bucket, and B owns it."),
        Answer("Account A: the role's policy.", "Then the error would say: no identity-based policy."),
        Answer("The cluster: the annotation.", "The pod has its role already. S3 refuses that role."),
    ),
    Question(
        "10-6",
        "With the session of its role, a pod assumes a second role. How long can the second session live?",
        Answer("12 hours, if the role's maximum allows it.", "In a chain of roles, this maximum doesn't count."),
        Right("1 hour at most.", "That's the limit of role chaining. SDKs renew the session."),
        Answer("As long as the token.", "The token counts only for the first role."),
    ),
    Question(
        "10-7",
        "A pod needs one bucket of account B, and nothing else there. Which way needs the fewest parts?",
        Right("A bucket policy.", "It's one document in B. The pod keeps its role and its code."),
        Answer(
            "A provider in B.",
            "You need a provider and a role in B. Choose this way if the pod uses many services of B.",
        ),
        Answer("Role chaining.", "You need a role in B, a permission in A, and a profile in the pod."),
    ),
)
