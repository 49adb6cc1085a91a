"""The Terraform module makes the role of step 2, and the configuration holds the module's arguments."""

import json
import re

import pytest

from labkit import terraform
from labkit.policy import Policy, evaluate_trust
from labkit.run_parameters import Parameters
from labkit.steps import iam_role

ISSUER = "oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
PROVIDER = f"arn:aws:iam::123456789012:oidc-provider/{ISSUER}"
RUNS = [
    {},
    {"cluster": "green", "namespace": "payments", "service_account": "reader", "role_name": "reader"},
    {"service_account": "a.b.c", "role_name": "r@+=,.-_",
     "policy_arn": "arn:aws:iam::123456789012:policy/a/path/1st.p"},
]  # fmt: skip


def parameters(values: dict[str, str]) -> Parameters:
    return Parameters.checked(**values)


@pytest.mark.parametrize("values", RUNS)
def test_the_terraform_module_makes_the_role_of_step_2(values):
    run = parameters(values)
    made = terraform.rendered(terraform.variables(run, PROVIDER))
    assert made.trust_policy == iam_role.build(run, PROVIDER)
    assert made.attachments == (run.policy_arn,)
    assert made.name == run.role_name


def test_by_default_the_terraform_module_takes_the_name_as_a_prefix():
    variables = terraform.variables(parameters({}), PROVIDER)
    del variables["use_name_prefix"]
    assert terraform.rendered(variables).name == "my-role-"


def test_the_trust_policy_is_written_as_terraform_s_aws_provider_writes_it():
    # As in the attribute `json` of an aws_iam_policy_document: map keys in order, no Sid, no list with one value.
    made = terraform.rendered(terraform.variables(parameters({}), PROVIDER))
    assert json.dumps(made.trust_policy, separators=(",", ":")) == (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRoleWithWebIdentity",'
        f'"Principal":{{"Federated":"{PROVIDER}"}},"Condition":{{"StringEquals":{{'
        f'"{ISSUER}:aud":"sts.amazonaws.com","{ISSUER}:sub":"system:serviceaccount:default:my-service-account"}}}}}}]}}'
    )


def test_two_providers_become_two_statements_in_the_order_of_their_keys():
    account = ["default:my-app", "canary:my-app"]
    providers = {
        "two": {"provider_arn": PROVIDER + "2", "namespace_service_accounts": account},
        "one": {"provider_arn": PROVIDER + "1", "namespace_service_accounts": account[:1]},
    }
    one, two = terraform.rendered({"name": "my-app", "oidc_providers": providers}).trust_policy["Statement"]
    assert one["Principal"]["Federated"] == PROVIDER + "1"
    assert one["Condition"]["StringEquals"][f"{ISSUER}1:sub"] == "system:serviceaccount:default:my-app"
    assert two["Condition"]["StringEquals"][f"{ISSUER}2:sub"] == [
        "system:serviceaccount:default:my-app",
        "system:serviceaccount:canary:my-app",
    ]


@pytest.mark.parametrize(("operator", "allowed"), [("StringEquals", False), ("StringLike", True)])
def test_a_wildcard_needs_string_like_as_the_trust_condition_test(operator, allowed):
    variables = terraform.variables(parameters({}), PROVIDER) | {"trust_condition_test": operator}
    variables["oidc_providers"]["this"]["namespace_service_accounts"] = ["default:my-*"]
    trust = Policy.parse(terraform.rendered(variables).trust_policy, kind="trust", name="my-role")
    context = {
        f"{ISSUER}:sub": "system:serviceaccount:default:my-service-account",
        f"{ISSUER}:aud": "sts.amazonaws.com",
    }
    assert evaluate_trust(trust, provider_arn=PROVIDER, context=context).allowed is allowed


@pytest.mark.parametrize("values", RUNS)
def test_the_configuration_holds_the_module_s_arguments(values):
    run = parameters(values)
    text = terraform.hcl(terraform.variables(run, PROVIDER))
    assert read_module(text) == {
        "source": "terraform-aws-modules/iam/aws//modules/iam-role-for-service-accounts",
        "version": "~> 6.0",
        **terraform.variables(run, PROVIDER),
    }


def test_the_configuration_is_laid_out_for_a_reader():
    assert terraform.hcl(terraform.variables(parameters({}), PROVIDER)).splitlines()[:15] == [
        'module "irsa" {',
        '  source  = "terraform-aws-modules/iam/aws//modules/iam-role-for-service-accounts"',
        '  version = "~> 6.0"',
        "",
        '  name            = "my-role"',
        "  use_name_prefix = false",
        "",
        "  oidc_providers = {",
        "    this = {",
        f'      provider_arn               = "{PROVIDER}"',
        '      namespace_service_accounts = ["default:my-service-account"]',
        "    }",
        "  }",
        "",
        "  policies = {",
    ]


def test_a_value_in_the_configuration_is_text_and_never_an_expression():
    text = terraform.hcl({"name": 'a"b\\c\nd${e}%{f}', "policies": {"for": "1", "labkit:x${y}": "2"}})
    assert r'name = "a\"b\\c\nd$${e}%%{f}"' in text
    assert '    "for"' in text
    assert '    "labkit:x$${y}" = "2"' in text


def read_module(text: str) -> dict:
    """Parse the arguments of the module block, with as much of HCL as this text uses."""
    block = re.match(r'module "irsa" \{\n(.*?)\n\}\n', text, re.S)[1]
    as_json = re.sub(
        r'^( *)("[^"]*"|[\w-]+) *= ', lambda m: m[1] + json.dumps(m[2].strip('"')) + ": ", block, flags=re.M
    )
    as_json = re.sub(r"([^{\n])\n+(?= *\")", r"\1,\n", as_json)
    return json.loads("{" + as_json.replace("$${", "${").replace("%%{", "%{") + "}")
