"""Notebook 99: before you delete a resource, delete everything that uses it. Never delete other people's resources."""

import json

from botocore.exceptions import ClientError

from labkit.course.exercises.asking import refusal
from labkit.course.exercises.exercise import Exercise, make_role
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.workspace import Workspace

ATTACHED = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
TEAMS = {"cart": "shop", "till": "bank", "vault": "shop"}
EXISTS, GONE = "exists", "NoSuchEntity"


def _role_with_two_kinds_of_policies(place: Workspace) -> None:
    iam, name = place.aws.client("iam"), place.parameters.role_name
    make_role(place)
    make_role(place, name=f"{name}-till")
    statement = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"}
    inline = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.attach_role_policy(RoleName=name, PolicyArn=ATTACHED)
    iam.put_role_policy(RoleName=name, PolicyName="writing", PolicyDocument=inline)


def _only_the_other_role_is_left(place: Workspace) -> list[Comparison]:
    name = place.parameters.role_name
    return [_gone(place, name), _kept(place, f"{name}-till")]


def _roles_of_two_teams(place: Workspace) -> None:
    for workload, team in TEAMS.items():
        name = _role_of(place, workload)
        make_role(place, name=name)
        place.aws.client("iam").tag_role(RoleName=name, Tags=[{"Key": "team", "Value": team}])


def _only_the_other_team_has_roles(place: Workspace) -> list[Comparison]:
    judge = {"shop": _gone, "bank": _kept}
    return [judge[team](place, _role_of(place, workload)) for workload, team in TEAMS.items()]


def _role_of(place: Workspace, workload: str) -> str:
    return f"{place.parameters.role_name}-{workload}"


def _gone(place: Workspace, role: str) -> Comparison:
    answer = _answer_for(place, role)
    return Comparison(f"IAM's answer for {role}", f"refused: {GONE}", answer, answer.startswith(GONE))


def _kept(place: Workspace, role: str) -> Comparison:
    return Comparison(f"IAM's answer for {role}", EXISTS, _answer_for(place, role))


def _answer_for(place: Workspace, role: str) -> str:
    try:
        place.aws.client("iam").get_role(RoleName=role)
    except ClientError as error:
        return refusal(error)
    return EXISTS


EXERCISES = (
    Exercise(
        "99-a",
        "delete one role, and leave the other one alone",
        _role_with_two_kinds_of_policies,
        _only_the_other_role_is_left,
        "IAM refuses to delete a role that has policies. This role has two kinds of them.",
        "A role has attached policies and inline policies. iam.list_role_policies lists the inline ones.",
        'Call iam.detach_role_policy, then iam.delete_role_policy with PolicyName "writing", then iam.delete_role.',
    ),
    Exercise(
        "99-b",
        "delete the roles of the team shop, and no others",
        _roles_of_two_teams,
        _only_the_other_team_has_roles,
        "A role's name doesn't tell you which team owns the role. What else does a role have?",
        'iam.list_role_tags(RoleName="exercise-99-b-cart") returns the tags of one role.',
        "Delete each of the three roles that has a tag with the key team and the value shop.",
    ),
)

PREDICTIONS = (
    Question(
        "99-1",
        "my-role has a policy attached. You call delete-role. What does IAM do?",
        Answer(
            "It deletes the role and the policy.",
            "IAM never deletes a managed policy because a role is deleted. Other roles may use it.",
        ),
        Answer(
            "It detaches the policy, and deletes the role.",
            "The console does that for you. The API, the CLI and boto3 don't.",
        ),
        Right("It refuses.", "IAM answers DeleteConflict: first detach every policy."),
    ),
)

RECALL = (
    Question(
        "99-2",
        "In which order do you delete the resources that IRSA needs?",
        Answer(
            "The provider first, then the role, then the pod.",
            "The pod would still run, but lose its access to AWS: STS would no longer admit its token.",
        ),
        Right(
            "The pod first, then the service account, the role and the provider.",
            "Delete a resource before the resources that it uses.",
        ),
        Answer("The order doesn't matter.", "It matters: in the wrong order, a pod that still runs loses its role."),
    ),
    Question(
        "99-3",
        "IAM says: Cannot delete entity, must detach all policies first. What do you do?",
        Answer("Delete the policy.", "You can't delete AWS's own policies, and other roles may use your policy."),
        Right(
            "Detach the attached policies, and delete the inline ones.",
            "IAM deletes a role only if it has no policies of either kind.",
        ),
        Answer("Wait until the role's sessions have expired.", "You can delete a role that has open sessions."),
    ),
    Question(
        "99-4",
        "How do you find the resources of one run of the lab, and no others?",
        Answer("By their names.", "Another team can use the same names."),
        Right(
            "By their tags in AWS, and by their labels in Kubernetes.",
            "The tags and the labels name the run: its cluster, namespace, service account and role.",
        ),
        Answer("By their age.", "Others create resources at the same time."),
    ),
    Question(
        "99-5",
        "You deleted the service account. Someone has a copy of its token. What can they still do?",
        Answer("Nothing: the token is invalid now.", "It's invalid for the cluster. But AWS never asks the cluster."),
        Right(
            "Become the role, until the token expires or the role is deleted.",
            "STS checks the signature, the times and the trust policy. On AWS, STS even accepts a token for five "
            "minutes after it has expired.",
        ),
        Answer("Get a new token.", "For that, the service account would have to exist."),
    ),
    Question(
        "99-6",
        "Before you delete the OIDC provider, what do you check?",
        Right(
            "Which roles trust it, and which run registered it.",
            "All roles for the cluster's pods share the provider. Without it, STS admits none of the pods. The "
            "provider's tag names the run that registered it.",
        ),
        Answer(
            "Whether a pod still runs.", "This run's pods are gone already, but other runs' pods may need the provider."
        ),
        Answer("Nothing: IAM doesn't delete a provider in use.", "IAM deletes a provider even if roles trust it."),
    ),
)
