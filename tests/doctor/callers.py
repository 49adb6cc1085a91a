"""`labkit doctor` as a command, and callers who may see less than the administrator."""

import json

from labkit.simulator import BoundSession
from tests.commands import labkit as labkit_command

POLICY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"


def doctor(*arguments, **variables):
    return labkit_command("doctor", *arguments, **variables)


def session_of(lab, *denied):
    """A session that may do everything except these actions."""
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    deny = [{"Effect": "Deny", "Action": list(denied), "Resource": "*"}] if denied else []
    iam, sts = lab.aws.client("iam"), lab.aws.client("sts")
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{lab.account_id}:root"}, "Action": "sts:AssumeRole"}
    name = "operator"
    if name not in [role["RoleName"] for role in iam.list_roles()["Roles"]]:
        iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        )
    document = {"Version": "2012-10-17", "Statement": [allow, *deny]}
    iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps(document))
    keys = sts.assume_role(RoleArn=f"arn:aws:iam::{lab.account_id}:role/{name}", RoleSessionName="somebody")[
        "Credentials"
    ]
    return BoundSession(
        endpoint_url=lab.aws.endpoint_url,
        access_key_id=keys["AccessKeyId"],
        secret_access_key=keys["SecretAccessKey"],
        session_token=keys["SessionToken"],
        region=lab.aws.region_name,
    )


def changed(connection, **changes):
    from dataclasses import replace

    return replace(connection, **changes)
