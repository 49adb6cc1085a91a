"""Tries at the exercises of notebook 11."""

import json

from labkit import Lab
from labkit.connection import OTHER_ACCOUNT
from tests.course.attempts import Attempts

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
AWS = "sts.amazonaws.com"
CART = "cart found InvalidIdentityToken"
READ = "s3:GetObject"


def there(lab: Lab, service: str):
    return lab.connection.account(OTHER_ACCOUNT).client(service)


def register(lab: Lab, *audiences: str) -> None:
    there(lab, "iam").create_open_id_connect_provider(Url=lab.issuer, ClientIDList=[*audiences])


def allow(lab: Lab, bucket: str, principal: str, action: str = READ, **more: dict) -> None:
    statement = {"Effect": "Allow", "Action": action, "Resource": f"arn:aws:s3:::{bucket}/*"}
    statement |= {"Principal": {"AWS": principal}, **more}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    there(lab, "s3").put_bucket_policy(Bucket=bucket, Policy=document)


@wrong("11-a", CART)
def for_another_audience(lab, name):
    register(lab, "https://kubernetes.default.svc")


@wrong("11-a", CART)
def our_own_provider_in_their_trust_policy(lab, name):
    iam = there(lab, "iam")
    policy = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    policy["Statement"][0]["Principal"] = {"Federated": lab.provider_arn}
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(policy))


@wrong("11-a", "audience vault found AccessDenied")
def for_one_audience_too_many(lab, name):
    register(lab, AWS, "vault")


@wrong("11-a", "created just now found admitted")
def registered_for_every_name_that_begins_with_c(lab, name):
    register(lab, AWS)
    iam = there(lab, "iam")
    policy = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    conditions = policy["Statement"][0]["Condition"]
    (key,) = [each for each in conditions["StringEquals"] if each.endswith(":sub")]
    conditions["StringLike"] = {key: conditions["StringEquals"].pop(key).replace(":cart", ":c*")}
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(policy))


@right("11-a")
def registered(lab, name):
    register(lab, AWS)


@right("11-a")
def registered_with_the_audience_later(lab, name):
    register(lab)
    arn = lab.in_account(OTHER_ACCOUNT).provider_arn
    there(lab, "iam").add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID=AWS)


@wrong("11-b", "cart: read found AccessDenied")
def more_permissions_on_our_side(lab, name):
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    lab.aws.client("iam").put_role_policy(RoleName=name, PolicyName="more", PolicyDocument=document)


@wrong("11-b", "till: read found allowed")
def the_whole_account(lab, name):
    allow(lab, name, f"arn:aws:iam::{lab.account_id}:root")


@wrong("11-b", "cart: write found allowed")
def every_action(lab, name):
    allow(lab, name, lab.connection.role_arn(name), "s3:*")


@wrong("11-b", "a role of this account, created just now: read found allowed")
def every_role_but_the_other(lab, name):
    other = {"ArnNotEquals": {"aws:PrincipalArn": lab.connection.role_arn(f"{name}-till")}}
    allow(lab, name, f"arn:aws:iam::{lab.account_id}:root", Condition=other)


@right("11-b")
def the_role(lab, name):
    allow(lab, name, lab.connection.role_arn(name))


@right("11-b")
def everybody_who_is_the_role(lab, name):
    allow(lab, name, "*", Condition={"ArnEquals": {"aws:PrincipalArn": lab.connection.role_arn(name)}})


def provider(lab: Lab, *, add: str = "", remove: str = "") -> None:
    """Change the audiences that the provider over there lists."""
    iam, arn = there(lab, "iam"), lab.in_account(OTHER_ACCOUNT).provider_arn
    if add:
        iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID=add)
    if remove:
        iam.remove_client_id_from_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID=remove)


def admit(lab: Lab, name: str, *subjects: str, operator: str = "StringEquals") -> None:
    """Register the issuer over there, and let the role there admit these."""
    register(lab, AWS)
    iam = there(lab, "iam")
    policy = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    conditions = policy["Statement"][0]["Condition"]
    (key,) = [each for each in conditions["StringEquals"] if each.endswith(":sub")]
    del conditions["StringEquals"][key]
    conditions.setdefault(operator, {})[key] = [f"system:serviceaccount:{each}" for each in subjects]
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(policy))


def role(lab: Lab, name: str) -> str:
    return lab.connection.role_arn(name)


ROOT = "arn:aws:iam::123456789012:root"
NOT_READ, JUST_NOW = "cart: read found AccessDenied", "created just now found admitted"
ATTEMPTS.more(
    "11-a",
    wrong={
        "nothing": (CART, lambda lab, name: None),
        "without an audience": (CART, lambda lab, name: register(lab)),
        "a regional name of STS": (CART, lambda lab, name: register(lab, "sts.us-east-1.amazonaws.com")),
        "till admitted as well": (
            "exercise-11-a:till found admitted",
            lambda lab, name: admit(lab, name, f"{name}:cart", f"{name}:till"),
        ),
        "a name that doesn't exist as well": (
            JUST_NOW,
            lambda lab, name: admit(lab, name, f"{name}:cart", f"{name}:later"),
        ),
        "cart of every namespace": (JUST_NOW, lambda lab, name: admit(lab, name, "*:cart", operator="StringLike")),
    },
    right={
        "a thumbprint": lambda lab, name: there(lab, "iam").create_open_id_connect_provider(
            Url=lab.issuer, ClientIDList=[AWS], ThumbprintList=["9e99a48a9960b14926bb7f3b02e22da2b0ab7280"]
        ),
        "the wrong audience first": lambda lab, name: (
            register(lab, "vault"),
            provider(lab, add=AWS, remove="vault"),
        ),
        "the subject as a list": lambda lab, name: admit(lab, name, f"{name}:cart"),
    },
)
ATTEMPTS.more(
    "11-b",
    wrong={
        "nothing": (NOT_READ, lambda lab, name: None),
        "till in place of cart": (
            "till: read found allowed",
            lambda lab, name: allow(lab, name, role(lab, f"{name}-till")),
        ),
        "everybody": ("till: read found allowed", lambda lab, name: allow(lab, name, "*")),
        "the bucket's list alone": (
            NOT_READ,
            lambda lab, name: allow(lab, name, role(lab, name), "s3:GetObjectAcl"),
        ),
        "every role that begins alike": (
            "till: read found allowed",
            lambda lab, name: allow(lab, name, "*", Condition={"ArnLike": {"aws:PrincipalArn": f"{role(lab, name)}*"}}),
        ),
        "writing as well": (
            "cart: write found allowed",
            lambda lab, name: allow(lab, name, role(lab, name), "s3:*Object"),
        ),
    },
    right={
        "the account, limited to the role": lambda lab, name: allow(
            lab, name, ROOT, Condition={"ArnEquals": {"aws:PrincipalArn": role(lab, name)}}
        ),
        "limited as a text": lambda lab, name: allow(
            lab, name, ROOT, Condition={"StringEquals": {"aws:PrincipalArn": role(lab, name)}}
        ),
        "too wide first": lambda lab, name: (allow(lab, name, ROOT), allow(lab, name, role(lab, name))),
    },
)
