"""A run's role as a Terraform configuration, and the role that this configuration would create.

The configuration calls the module `iam-role-for-service-accounts` of terraform-aws-modules/iam, version 6.

https://registry.terraform.io/modules/terraform-aws-modules/iam/aws/latest/submodules/iam-role-for-service-accounts
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labkit.documents import AUDIENCE
from labkit.policy.arn import Arn
from labkit.policy.written import PolicyDocument, StatementDocument
from labkit.run_parameters import Parameters

SOURCE = "terraform-aws-modules/iam/aws//modules/iam-role-for-service-accounts"
VERSION = "~> 6.0"

Variables = Mapping[str, Any]


@dataclass(frozen=True)
class Rendered:
    """The role that the Terraform module would create, with only the attributes that the lab compares."""

    name: str
    """The role's name. If it ends in `-`, it's a prefix: the AWS provider appends a timestamp."""
    trust_policy: PolicyDocument
    attachments: tuple[str, ...]
    """The ARNs of the attached policies, sorted."""


def variables(parameters: Parameters, provider_arn: str) -> dict[str, Any]:
    """Return the module's variables for the role of these parameters.

    `use_name_prefix` is false. Otherwise, the role's name would be `my-role-` and a timestamp.
    """
    subject = f"{parameters.namespace}:{parameters.service_account}"
    return {
        "name": parameters.role_name,
        "use_name_prefix": False,
        "oidc_providers": {
            "this": {"provider_arn": provider_arn, "namespace_service_accounts": [subject]},
        },
        "policies": {Arn.parse(parameters.policy_arn).name: parameters.policy_arn},
        "tags": {tag["Key"]: tag["Value"] for tag in parameters.tags},
    }


def hcl(module_variables: Variables) -> str:
    """Return the text of a `main.tf` that calls the module with these variables, formatted as by `terraform fmt`.

    https://developer.hashicorp.com/terraform/language/modules/syntax
    """
    simple = {name: value for name, value in module_variables.items() if not isinstance(value, Mapping)}
    maps = [{name: value} for name, value in module_variables.items() if isinstance(value, Mapping)]
    # A group of lines for the simple attributes, and a group for each map.
    groups = [_attributes(group, 1) for group in [{"source": SOURCE, "version": VERSION}, simple, *maps] if group]
    return (
        'module "irsa" {\n' + "\n\n".join(groups) + "\n}\n\n"
        'output "role_arn" {\n'
        '  description = "for the annotation eks.amazonaws.com/role-arn of the service account"\n'
        "  value       = module.irsa.arn\n"
        "}\n"
    )


def rendered(module_variables: Variables) -> Rendered:
    """Return the role that the module's templates make from these variables.

    The trust policy follows the module's `data "aws_iam_policy_document" "assume"`. Like Terraform's AWS provider, this
    function omits an empty `Sid`, and writes a list with one element as a string.

    https://registry.terraform.io/providers/hashicorp/aws/latest/docs/data-sources/iam_policy_document
    """
    operator = module_variables.get("trust_condition_test", "StringEquals")
    providers = module_variables.get("oidc_providers", {})
    statements = [_statement(providers[key], operator) for key in sorted(providers)]
    name = module_variables.get("name", "")
    return Rendered(
        name=f"{name}-" if module_variables.get("use_name_prefix", True) else name,
        trust_policy={"Version": "2012-10-17", "Statement": statements},
        attachments=tuple(sorted(module_variables.get("policies", {}).values())),
    )


def _statement(provider: Mapping[str, Any], operator: str) -> StatementDocument:
    arn = provider["provider_arn"]
    # The module removes everything up to the last "provider/". The condition keys start with the rest.
    issuer = re.sub(r"^.*provider/", "", arn)
    subjects = [f"system:serviceaccount:{account}" for account in provider["namespace_service_accounts"]]
    return {
        "Effect": "Allow",
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {"Federated": arn},
        "Condition": {
            operator: {
                f"{issuer}:aud": AUDIENCE,
                f"{issuer}:sub": subjects[0] if len(subjects) == 1 else subjects,
            }
        },
    }


def _attributes(values: Variables, depth: int) -> str:
    """Return `name = value` lines with aligned equals signs."""
    keys = {name: _key(name) for name in values}
    width = max((len(key) for name, key in keys.items() if not isinstance(values[name], Mapping)), default=0)
    lines = []
    for name, value in values.items():
        key = keys[name] if isinstance(value, Mapping) else keys[name].ljust(width)
        lines.append(f"{'  ' * depth}{key} = {_value(value, depth)}")
    return "\n".join(lines)


def _value(value: Any, depth: int) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return _quoted(value)
        case Mapping():
            return "{\n" + _attributes(value, depth + 1) + "\n" + "  " * depth + "}" if value else "{}"
        case _:
            return "[" + ", ".join(_value(item, depth) for item in value) + "]"


def _key(name: str) -> str:
    # An unquoted `for` at the start of a map would start an expression.
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name) and name != "for"
    return name if plain else _quoted(name)


def _quoted(text: str) -> str:
    """Return `text` as an HCL string.

    https://developer.hashicorp.com/terraform/language/expressions/strings#escape-sequences
    """
    return re.sub(r"([$%])\{", r"\1\1{", json.dumps(text, ensure_ascii=False))
