"""Each path of each REST service, with names that are empty, encoded or wrong, and with slashes."""

import re

import pytest

from labkit.simulator.aws.backend import get_service_model
from tests.simulator.aws.conftest import ADMINISTRATOR_CREDENTIALS
from tests.simulator.aws.test_any_request import send, signed

# The models, and the service that calls are signed for.
REST = {name: name for name in ("account", "cloudfront", "eks", "eks-auth", "lambda", "route53", "s3")}
REST["s3control"] = "s3"
WRONG = (
    "",
    "%2F",
    "%00",
    "%0A",
    "%ff",
    "%",
    "%20",
    ".",
    "..",
    "%2E%2E",
    "blue%2Fnode-groups",
    "blue%2f",
    "/blue",
    "blue/",
)
ROLE = "arn:aws:iam::123456789012:role/eks"
FORMS = {"rest-json": r'\{"__type": "\w+", "message": "', "rest-xml": "<ErrorResponse .*<Code>", "s3": "<Error><Code>"}


def paths(model_name: str) -> set[tuple[str, str]]:
    """Each operation's method, with its path made wrong in each way that isn't another operation's right path."""
    model, wrong = get_service_model(model_name), set()
    for number, operation in enumerate(model.operation_names):
        # Of the other models, two values for each operation: all would take a minute.
        texts = (
            WRONG if model_name.startswith("eks") else (WRONG[number % len(WRONG)], WRONG[(number + 5) % len(WRONG)])
        )
        http = model.operation_model(operation).http
        uri = re.sub(r"\{(\w+)\+\}", r"{\1}", http["requestUri"])
        labels = re.findall(r"\{(\w+)\}", uri)
        whole = uri.format(**dict.fromkeys(labels, "blue"))
        path, mark, query = whole.partition("?")
        wrong |= {(http["method"], f"{path}{slash}{mark}{query}") for slash in ("/", "//") if not path.endswith("/")}
        wrong |= {
            (http["method"], uri.format(**{each: text if each == label else "blue" for each in labels}))
            for label in labels
            for text in texts
            if model_name != "s3" or (label == "Bucket" and not text.endswith("/"))
        }
    if model_name == "s3":  # a bucket and its path with a slash are the same, and an object's name may be anything
        wrong = {(method, path) for method, path in wrong if not re.match("/blue(/|$)", path)}
        wrong -= {("GET", "/"), ("GET", "/?list-type=2"), ("POST", "/WriteGetObjectResponse/")}
    return wrong


@pytest.mark.parametrize("model_name", REST)
def test_a_path_with_a_wrong_name_is_refused_in_the_service_s_form(running, model_name):
    running.begin_anew()
    eks, subnets = running.client("eks"), {"subnetIds": ["subnet-1", "subnet-2"]}
    eks.create_cluster(name="blue", roleArn=ROLE, resourcesVpcConfig=subnets)
    service, keys = REST[model_name], ADMINISTRATOR_CREDENTIALS
    form = "s3" if service == "s3" else str(get_service_model(model_name).protocol)
    answers, unlike = {}, []
    for method, path in sorted(paths(model_name)):
        headers = [("content-type", "application/json"), ("x-amz-account-id", "123456789012")]
        status, text = send(running, method, path, signed(running, keys, service, method, path, headers=headers))
        answers[method, path] = status
        if method != "HEAD" and not re.search(FORMS[form], text, re.DOTALL):
            unlike.append((method, path, text[:200]))
    assert {call: status for call, status in answers.items() if status // 100 != 4} == {}
    assert unlike == []
    assert len(answers) > 5
    assert eks.describe_cluster(name="blue")["cluster"]["status"] == "ACTIVE"
