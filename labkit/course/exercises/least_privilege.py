"""Notebook 08: each workload gets its own role, with only the permissions that it needs."""

import json
from typing import Any

from labkit import documents
from labkit.course.exercises.asking import ADMITTED, ALLOWED, call, exchange, injected, newcomers, reads_only
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.steps import bucket, oidc_provider, service_account
from labkit.workspace import Workspace

REFUSED = "AccessDenied"


def _role_that_reads_the_whole_bucket(place: Workspace) -> None:
    s3, name = place.aws.client("s3"), place.parameters.namespace
    bucket.create(place.aws, name)
    for team in ("cart", "till", "cart-old"):
        s3.put_object(Bucket=name, Key=f"{team}/1.txt", Body=b"hello")
    _provider_and_account(place)
    make_role(place)
    whole = f"arn:{place.connection.partition}:s3:::{name}"
    actions = {"s3:ListBucket": whole, "s3:GetObject": f"{whole}/*"}
    statements = [{"Effect": "Allow", "Action": action, "Resource": arn} for action, arn in actions.items()]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    place.aws.client("iam").put_role_policy(RoleName=name, PolicyName="reading", PolicyDocument=document)


def _role_that_two_share(place: Workspace) -> None:
    policy = documents.trust_policy(place.parameters, place.provider_arn)
    issuer = place.issuer.removeprefix("https://")
    policy["Statement"][0]["Condition"]["StringEquals"][f"{issuer}:sub"] = [
        f"system:serviceaccount:{place.parameters.namespace}:{name}" for name in ("cart", "till")
    ]
    _provider_and_account(place)
    make_role(place, policy)
    make_account(place, "till")


def _provider_and_account(place: Workspace) -> None:
    oidc_provider.ensure(place)
    service_account.ensure(place)


def _reads_its_own_prefix(place: Workspace) -> list[Comparison]:
    def row(what: str, operation: str, expected: str, **more: Any) -> Comparison:
        answer = call(place, "s3", operation, Bucket=place.parameters.namespace, **more)
        return Comparison(f"cart: {what}", expected, answer, answer.startswith(expected))

    wide = [
        row("list an empty prefix", "list_objects_v2", REFUSED, Prefix=""),
        row("list cart, without a slash", "list_objects_v2", REFUSED, Prefix="cart"),
    ]
    return [
        row("list cart/", "list_objects_v2", ALLOWED, Prefix="cart/"),
        row("read cart/1.txt", "get_object", ALLOWED, Key="cart/1.txt"),
        row("write cart/1.txt", "put_object", REFUSED, Key="cart/1.txt"),
        # The key doesn't exist: if S3 deletes it, nothing is lost.
        row("delete cart/no-such-object", "delete_object", REFUSED, Key="cart/no-such-object"),
        row("list till/", "list_objects_v2", REFUSED, Prefix="till/"),
        row("list the whole bucket", "list_objects_v2", REFUSED),
        row("read till/1.txt", "get_object", REFUSED, Key="till/1.txt"),
        row("list cart-old/", "list_objects_v2", REFUSED, Prefix="cart-old/"),
        row("read cart-old/1.txt", "get_object", REFUSED, Key="cart-old/1.txt"),
        # Show these rows only if they are wrong.
        *(each for each in wide if not each.right),
        *reads_only(place, "cart/1.txt"),
    ]


def _each_has_its_own_role(place: Workspace) -> list[Comparison]:
    shared = place.parameters.role_name
    own = f"{shared}-till"
    arns = {name: place.connection.role_arn(name) for name in (shared, own)}

    def row(account: str, role: str, expected: str) -> Comparison:
        answer = exchange(place, account, role_arn=arns[role])
        return Comparison(f"{account} asks for {role}", expected, answer, answer.startswith(expected))

    return [
        Comparison("a new pod of cart", arns[shared], injected(place, "cart")),
        Comparison("a new pod of till", arns[own], injected(place, "till")),
        row("cart", shared, ADMITTED),
        row("till", own, ADMITTED),
        row("till", shared, REFUSED),
        row("cart", own, REFUSED),
        *newcomers(place, "cart", role_arn=arns[shared]),
        *newcomers(place, "till", role_arn=arns[own]),
    ]


EXERCISES = (
    Exercise(
        "08-a",
        "let the role read one prefix of its bucket, and no more",
        _role_that_reads_the_whole_bucket,
        _reads_its_own_prefix,
        "The role's policy has two statements: one allows listing, and one allows reading. What does each of them "
        "allow that cart doesn't need?",
        "Listing is an action on the bucket, so limit it with a condition on s3:prefix. Reading is an action on "
        "objects, so limit it in the resource.",
        'The statement for listing gets the Condition {"StringLike": {"s3:prefix": "cart/*"}}. The statement for '
        "reading gets the Resource arn:aws:s3:::exercise-08-a/cart/*.",
    ),
    Exercise(
        "08-b",
        "give till its own role",
        _role_that_two_share,
        _each_has_its_own_role,
        "Three objects decide which role till gets: its annotation, and the trust policies of two roles.",
        "Create the role exercise-08-b-till, which admits only till. Name this role in till's annotation. Then "
        "remove till from the trust policy of exercise-08-b.",
        "In the trust policy of exercise-08-b, the key that ends in :sub has two subjects, for cart and for till. "
        "Create the role exercise-08-b-till with the subject for till. Leave only the subject for cart in "
        "exercise-08-b.",
    ),
)

PREDICTIONS = (
    Question(
        "08-1",
        "The pod invoices sets AWS_ROLE_ARN to the role of orders, and calls S3. What happens?",
        Answer(
            "It gets the role: the variable says which role the pod has.",
            "The variable only says which role the SDK asks for. The token tells STS who asks.",
        ),
        Right(
            "STS refuses it.",
            "The token's subject is still invoices, and the trust policy of this role doesn't admit invoices.",
        ),
        Answer("Kubernetes refuses to set the variable.", "A process can set any variable for itself."),
    ),
    Question(
        "08-2",
        "A minute ago, the pod invoices assumed the role of orders. Then that role's trust policy was repaired. What "
        "does the next S3 call of invoices get?",
        Answer("AccessDenied.", "STS reads the trust policy only when a session begins."),
        Right(
            "The list of the orders.",
            "The session of invoices goes on until it expires. STS refuses only new sessions.",
        ),
        Answer("ExpiredToken.", "A change of the trust policy doesn't end a session."),
    ),
)

RECALL = (
    Question(
        "08-3",
        "Two workloads run on one node. What gives them two different roles?",
        Answer("Two node groups.", "You need them only if pods use the node's role. With IRSA, pods don't."),
        Right(
            "Two service accounts, each annotated with its own role.",
            "The token names the service account, so STS can tell the two pods apart.",
        ),
        Answer("Two namespaces.", "One namespace is enough: a token's subject also holds the service account's name."),
    ),
    Question(
        "08-4",
        "A role may read the objects under orders/. Where does the prefix go in the statement for s3:ListBucket?",
        Answer("Into the resource.", "Listing is an action on the bucket: its resource is the bucket's ARN."),
        Right("Into a condition on s3:prefix.", "The request carries the prefix as a condition key."),
        Answer(
            "Nowhere: the statement for s3:GetObject is enough.",
            "The role can list all names in the bucket if the statement for s3:ListBucket has no prefix.",
        ),
    ),
    Question(
        "08-5",
        "What keeps one pod from taking the other pod's role?",
        Answer("The annotation.", "The annotation only tells the webhook which role to name in the pod."),
        Answer("The role's permissions.", "They say what the role may do, not who may become the role."),
        Right("The role's trust policy.", "It names a subject, and a pod can't choose its subject."),
    ),
    Question(
        "08-6",
        'A trust policy says StringLike, sub "system:serviceaccount:shop:*". Who can become the role?',
        Right("Every service account in shop.", "That includes service accounts that someone creates tomorrow."),
        Answer("Only those with the annotation.", "STS never sees the annotation."),
        Answer("Nobody: sub can't have a wildcard.", "StringLike matches wildcards. StringEquals doesn't."),
    ),
    Question(
        "08-7",
        "A trust policy admits every service account in shop. How do you limit it to two of them?",
        Right(
            "Name the two service accounts in a list.",
            "StringEquals accepts a list. Afterwards, end the sessions that began before the change.",
        ),
        Answer(
            "Delete the other service accounts.",
            "Anyone who may create a pod or a token in shop can still get the role.",
        ),
        Answer(
            "Take permissions away from the role.", "Then the two service accounts' pods can't do their work either."
        ),
    ),
)
