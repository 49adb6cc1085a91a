"""Tries at the exercises of notebook 10."""

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


@wrong("10-a", CART)
def for_another_audience(lab, name):
    register(lab, "https://kubernetes.default.svc")


@wrong("10-a", CART)
def our_own_provider_in_their_trust_policy(lab, name):
    iam = there(lab, "iam")
    policy = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    policy["Statement"][0]["Principal"] = {"Federated": lab.provider_arn}
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(policy))


@wrong("10-a", "audience vault found AccessDenied")
def for_one_audience_too_many(lab, name):
    register(lab, AWS, "vault")


@wrong("10-a", "created just now found admitted")
def registered_for_every_name_that_begins_with_c(lab, name):
    register(lab, AWS)
    iam = there(lab, "iam")
    policy = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    conditions = policy["Statement"][0]["Condition"]
    (key,) = [each for each in conditions["StringEquals"] if each.endswith(":sub")]
    conditions["StringLike"] = {key: conditions["StringEquals"].pop(key).replace(":cart", ":c*")}
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(policy))


@right("10-a")
def registered(lab, name):
    register(lab, AWS)


@right("10-a")
def registered_with_the_audience_later(lab, name):
    register(lab)
    arn = lab.in_account(OTHER_ACCOUNT).provider_arn
    there(lab, "iam").add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID=AWS)


@wrong("10-b", "cart: read found AccessDenied")
def more_permissions_on_our_side(lab, name):
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    lab.aws.client("iam").put_role_policy(RoleName=name, PolicyName="more", PolicyDocument=document)


@wrong("10-b", "till: read found allowed")
def the_whole_account(lab, name):
    allow(lab, name, f"arn:aws:iam::{lab.account_id}:root")


@wrong("10-b", "cart: write found allowed")
def every_action(lab, name):
    allow(lab, name, lab.connection.role_arn(name), "s3:*")


@wrong("10-b", "a role of this account, created just now: read found allowed")
def every_role_but_the_other(lab, name):
    other = {"ArnNotEquals": {"aws:PrincipalArn": lab.connection.role_arn(f"{name}-till")}}
    allow(lab, name, f"arn:aws:iam::{lab.account_id}:root", Condition=other)


@right("10-b")
def the_role(lab, name):
    allow(lab, name, lab.connection.role_arn(name))


@right("10-b")
def everybody_who_is_the_role(lab, name):
    allow(lab, name, "*", Condition={"ArnEquals": {"aws:PrincipalArn": lab.connection.role_arn(name)}})
