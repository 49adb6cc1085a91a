"""Notebook 01: an account trusts the issuers that are registered in it."""

from labkit.course.exercises.asking import admits, exchange
from labkit.course.exercises.exercise import Exercise, make_role
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.steps import service_account
from labkit.workspace import Workspace


def _role_that_trusts_the_new_cluster(place: Workspace) -> None:
    service_account.ensure(place)
    make_role(place)


def _provider_for_another_audience(place: Workspace) -> None:
    _role_that_trusts_the_new_cluster(place)
    audiences = ["https://kubernetes.default.svc"]
    iam = place.aws.client("iam")
    iam.create_open_id_connect_provider(Url=place.issuer, ClientIDList=audiences, Tags=place.tags)


def _the_token_for_aws(place: Workspace) -> list[Comparison]:
    return [admits(place), _refused_as_token(place, "vault")]


def _the_token_for_aws_alone(place: Workspace) -> list[Comparison]:
    default = "https://kubernetes.default.svc"
    return [admits(place), _refused_as_token(place, "vault"), _refused_as_token(place, default)]


def _refused_as_token(place: Workspace, audience: str) -> Comparison:
    code, answer = "InvalidIdentityToken", exchange(place, audience=audience)
    return Comparison(f"a token for {audience}", f"refused: {code}", answer, answer.startswith(code))


EXERCISES = (
    Exercise(
        "01-a",
        "make AWS trust the new cluster",
        _role_that_trusts_the_new_cluster,
        _the_token_for_aws,
        "InvalidIdentityToken is about the token and the provider. Does the account know this cluster's issuer?",
        'eks.describe_cluster(name="exercise-01-a") returns the new cluster\'s issuer. It differs from the issuer '
        "of your first cluster.",
        "Call iam.create_open_id_connect_provider with the new cluster's issuer as Url and sts.amazonaws.com as "
        "client id.",
        own_cluster=True,
    ),
    Exercise(
        "01-b",
        "let in tokens that are made for AWS, and no others",
        _provider_for_another_audience,
        _the_token_for_aws_alone,
        "The provider exists. Read its ClientIDList, and compare it with the audience of a pod's token for AWS.",
        "In the provider's ClientIDList, one audience is missing, and one doesn't belong there.",
        "Add sts.amazonaws.com with iam.add_client_id_to_open_id_connect_provider, and remove the other audience.",
        own_cluster=True,
    ),
)

PREDICTIONS = (
    Question(
        "01-1",
        "AWS now knows the issuer, and the role doesn't exist yet. What does STS answer to the same token?",
        Answer(
            "InvalidIdentityToken again: the token is older than the provider.",
            "STS verifies a token when you send it. A token may be older than the provider.",
        ),
        Right(
            "AccessDenied: the token is fine, but the role isn't.",
            "STS now accepts the token and looks for the role. AccessDenied doesn't say whether the role exists.",
        ),
        Answer(
            "NoSuchEntity: the role doesn't exist.",
            "IAM would say that. STS gives the same answer for a missing role and a role that doesn't trust you.",
        ),
    ),
)

RECALL = (
    Question(
        "01-2",
        "Who can read an EKS cluster's discovery document and keys?",
        Right("Anybody, without credentials.", "Both are public, and STS fetches them over HTTPS like anybody else."),
        Answer("Only AWS.", "STS has no special access. It fetches a public URL."),
        Answer(
            "Anyone who may call eks:DescribeCluster.",
            "You need this call only to find the issuer's URL. The URL itself answers everybody.",
        ),
    ),
    Question(
        "01-3",
        "Which two facts does an OIDC provider in IAM hold?",
        Right("The issuer's URL and the audiences.", "IAM calls the audiences client IDs."),
        Answer("The cluster's name and its role.", "A provider contains neither a cluster's name nor a role."),
        Answer(
            "The service accounts and their namespaces.",
            "A role's trust policy names them, under the key that ends in :sub.",
        ),
    ),
    Question(
        "01-4",
        "STS answers InvalidIdentityToken. Where do you look?",
        Answer("At the role's trust policy.", "If the trust policy refuses a token, STS answers AccessDenied."),
        Right(
            "At the token and the provider.",
            "This error is about the issuer, the audience, the keys or the token itself.",
        ),
        Answer("At the role's permissions.", "They count only after you have the role's credentials."),
    ),
    Question(
        "01-5",
        "You delete a cluster and create one with the same name. What do you have to do about the OIDC provider?",
        Answer("Nothing: the cluster's name is the same.", "The issuer's URL holds the cluster's id, not its name."),
        Right(
            "Register the new issuer.",
            "Each cluster has its own id in the issuer's URL, so the old provider doesn't fit the new cluster.",
        ),
        Answer(
            "Nothing: EKS updates the provider.",
            "EKS never changes a provider in IAM. eksctl and Terraform register an issuer if you tell them to.",
        ),
    ),
    Question(
        "01-6",
        "Ten roles are for pods of one cluster. How many OIDC providers do they need?",
        Right("One.", "You register an issuer once in an account. Each role's trust policy names the same provider."),
        Answer("Ten.", "IAM refuses the same URL a second time: EntityAlreadyExists."),
        Answer("One for each namespace.", "Namespaces are in the token's subject, not in the issuer."),
    ),
)
