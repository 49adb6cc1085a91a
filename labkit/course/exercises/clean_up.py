"""Notebook 99: before you delete a resource, delete everything that uses it. Never delete other people's resources."""

from botocore.exceptions import ClientError

from labkit.course.exercises.asking import refusal, refused
from labkit.course.exercises.exercise import Exercise, allow, make_role
from labkit.doctor import Comparison
from labkit.workspace import Workspace

ATTACHED = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
TEAMS = {"cart": "shop", "till": "bank", "vault": "shop"}
EXISTS, GONE = "exists", "NoSuchEntity"


def _role_with_two_kinds_of_policies(place: Workspace) -> None:
    iam, name = place.aws.client("iam"), place.parameters.role_name
    make_role(place)
    make_role(place, name=f"{name}-till")
    iam.attach_role_policy(RoleName=name, PolicyArn=ATTACHED)
    allow(place, "writing", ("s3:PutObject", "*"))


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
    return refused(f"IAM's answer for {role}", GONE, _answer_for(place, role))


def _kept(place: Workspace, role: str) -> Comparison:
    return Comparison(f"IAM's answer for {role}", EXISTS, _answer_for(place, role))


def _answer_for(place: Workspace, role: str) -> str:
    try:
        place.aws.client("iam").get_role(RoleName=role)
    except ClientError as error:
        return refusal(error)
    return EXISTS


EXERCISES = (
    Exercise("99-a", _role_with_two_kinds_of_policies, _only_the_other_role_is_left),
    Exercise("99-b", _roles_of_two_teams, _only_the_other_team_has_roles),
)
