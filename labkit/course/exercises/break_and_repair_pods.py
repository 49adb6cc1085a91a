"""Notebook 10: pods without their role. One fault is drawn. In the second exercise, a bucket refuses the role, too."""

import json
from typing import Any

from labkit import documents
from labkit.course.exercises import drawn
from labkit.course.exercises.asking import (
    ADMITTED,
    ALLOWED,
    allows,
    caller,
    denies,
    exchange,
    injected,
    newcomers,
    refuses,
)
from labkit.course.exercises.exercise import Exercise, as_till, make_account, make_role
from labkit.doctor import Comparison
from labkit.steps import bucket
from labkit.workspace import Workspace

# With each of these, a pod acts as its node.
WITHOUT_ROLE = (
    "annotation-key-misspelt",
    "annotation-of-kube2iam",
    "annotation-left-out",
    "annotation-empty",
    "annotation-on-the-pod",
)


def _pod_that_is_its_node(place: Workspace) -> None:
    drawn.ready(place)
    drawn.broken(place, WITHOUT_ROLE, documents.pod(place.parameters, place.image))


def _pods_of_cart_alone(place: Workspace) -> list[Comparison]:
    return [
        Comparison("a new pod of cart", place.role_arn, injected(place)),
        Comparison("AWS knows my-pod as", f"assumed-role/{place.parameters.role_name}", caller(place)),
        Comparison("a new pod of default", "no role", injected(place, "default")),
        refuses(place, "default"),
    ]


def _bucket_that_denies_both(place: Workspace) -> None:
    drawn.ready(place)
    till, parameters = as_till(place), place.parameters
    make_role(till)
    place.aws.client("iam").attach_role_policy(RoleName=till.parameters.role_name, PolicyArn=parameters.policy_arn)
    make_account(till, "till")
    name, s3 = parameters.namespace, place.aws.client("s3")
    bucket.create(place.aws, name)
    s3.put_object(Bucket=name, Key=bucket.KEY, Body=bucket.BODY)
    of_bucket = f"arn:{place.connection.partition}:s3:::{name}"
    statement = {"Effect": "Deny", "Principal": {"AWS": [place.role_arn, till.role_arn]}}
    statement |= {"Action": ["s3:ListBucket", "s3:GetObject"], "Resource": [of_bucket, f"{of_bucket}/*"]}
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    drawn.broken(place, ("role-variable-given-by-hand",), documents.pod(parameters, place.image))


def _cart_alone_reads(place: Workspace) -> list[Comparison]:
    till = as_till(place)
    own: dict[str, Any] = {"Bucket": place.parameters.namespace}
    one = {**own, "Key": bucket.KEY}
    hidden = [
        allows(place, "cart reads an object", "s3", "get_object", **one),
        denies(place, "cart deletes an object", "s3", "delete_object", **own, Key="another"),
        denies(till, "till reads an object", "s3", "get_object", **one),
    ]
    return [
        Comparison("AWS knows my-pod as", f"assumed-role/{place.parameters.role_name}", caller(place)),
        Comparison("a new pod of cart", place.role_arn, injected(place)),
        allows(place, "cart lists the bucket", "s3", "list_objects_v2", **own),
        denies(till, "till lists the bucket", "s3", "list_objects_v2", **own),
        Comparison("till asks for its own role", ADMITTED, exchange(till)),
        *newcomers(place),
        # Show these rows only if they are wrong.
        *(row for row in hidden if not row.right and ALLOWED in (row.expected, row.found)),
    ]


EXERCISES = (
    Exercise("10-a", _pod_that_is_its_node, _pods_of_cart_alone),
    Exercise("10-b", _bucket_that_denies_both, _cart_alone_reads),
)
