"""Check policy documents as IAM does before it stores them, with IAM's own error messages.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps_syntax.html
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_rcps_syntax.html
"""

import json
import re
from typing import Any, Literal, NoReturn

from labkit.policy.conditions import known_operator
from labkit.policy.wildcards import wildcard

Kind = Literal["identity", "trust", "resource", "session", "boundary", "service control", "resource control"]
ORGANIZATION = ("service control", "resource control")
"""The kinds of policies that belong to AWS Organizations."""
# https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_rcps.html#rcp-supported-services
RESOURCE_CONTROLLED = frozenset((
    "aoss", "appconfig", "appstream", "autoscaling", "autoscaling-plans", "budgets", "clouddirectory", "cloudfront",
    "cloudsearch", "cloudtrail-data", "codeartifact", "codebuild", "codecommit", "codepipeline", "cognito-identity",
    "cognito-idp", "comprehend", "comprehendmedical", "compute-optimizer", "cost-optimization-hub", "dax", "dsql",
    "dynamodb", "ecr", "ecr-public", "events", "firehose", "fis", "fms", "gamelift", "health", "inspector-scan",
    "kendra", "kinesisvideo", "kms", "logs", "memorydb", "networkmonitor", "notifications", "opensearch",
    "pca-connector-ad", "personalize", "polly", "pricing", "resource-groups", "rolesanywhere", "s3", "secretsmanager",
    "servicediscovery", "signin", "sqs", "sts", "support", "swf", "textract", "timestream-influxdb", "transcribe",
    "transfer", "translate", "wafv2", "workspaces", "xray",
))  # fmt: skip
# The actions that a trust policy may name, in lower case.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecuritytokenservice.html
TRUST_ACTIONS = tuple(
    f"sts:{name}"
    for name in (
        "assumerole", "assumerolewithsaml", "assumerolewithwebidentity", "setcontext", "setsourceidentity", "tagsession"
    )
)  # fmt: skip
WRONG_POLICY_TYPE = "The provided policy document does not meet the requirements of the specified policy type."

# Levels of nesting. No policy needs more than eight: Statement, Condition, operator, key, values.
DEEPEST = 16
_SURROGATE = re.compile("[\ud800-\udfff]")


class MalformedPolicy(Exception):
    """IAM would refuse the document. `code` is the code of IAM's error, and `message` its text."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def validate(document: str | dict[str, object], kind: Kind) -> tuple[dict[str, object], str, int]:
    """Return the parsed document, its text, and its size in characters without white space.

    Raises `MalformedPolicy` if IAM would refuse the document.
    """
    parsed, text, size = load(document, kind)
    _check_top(parsed, kind)
    for statement in listed(parsed["Statement"]):
        _check_words(check_shape(statement, kind), kind)
    _check_sids(listed(parsed["Statement"]), kind)
    # Organizations counts white space, too.
    _check_size(len(text) if kind in ORGANIZATION else size, kind)
    return parsed, text, size


def load(document: str | dict[str, object], kind: Kind) -> tuple[dict[str, object], str, int]:
    """Return the document as a JSON object, the document's text, and the text's length without white space.

    Raises `MalformedPolicy` if the document isn't a readable JSON object.
    """
    try:
        text = document if isinstance(document, str) else json.dumps(document, separators=(",", ":"))
        parsed = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, TypeError, RecursionError):
        raise _malformed(kind, _INVALID_JSON[kind]) from None
    if not isinstance(parsed, dict) or not _readable(parsed):
        raise _malformed(kind, _INVALID_JSON[kind])
    size = len("".join(text.split())) if isinstance(document, str) else len(text)
    return parsed, text, size


def _readable(document: dict[str, Any]) -> bool:
    """Return whether the document has at most `DEEPEST` levels, and no unpaired surrogates."""
    level: list[object] = [document]
    for _ in range(DEEPEST):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
                return False
        if not below:
            return True
        level = below
    return False


def check_version(version: object, kind: Kind) -> None:
    """Raise `MalformedPolicy` for an unknown version of the policy language."""
    if version not in ("2008-10-17", "2012-10-17"):
        raise _malformed(kind, "Policy document must be version 2012-10-17 or greater.")


def check_shape(statement: object, kind: Kind) -> dict[str, Any]:
    """Return the statement. Raises `MalformedPolicy` if a field is missing, not allowed, or has an invalid value."""
    if not isinstance(statement, dict):
        raise _syntax(kind, "Statement must be a JSON object.")
    for field in statement:
        if field not in _FIELDS:
            raise _syntax(kind, f"Unknown field {field}")
    for field in ("Action", "Resource", "Principal"):
        if field in statement and f"Not{field}" in statement:
            raise _syntax(kind, f"{field} and Not{field} are mutually exclusive.")
    if "Effect" not in statement:
        raise _syntax(kind, "Missing required field Effect")
    if statement["Effect"] not in ("Allow", "Deny"):
        raise _syntax(kind, f"Invalid effect: {statement['Effect']}")
    _check_principal_shape(statement, kind)
    _check_action_shape(statement, kind)
    _check_resource_shape(statement, kind)
    if not isinstance(statement.get("Sid", ""), str):
        raise _syntax(kind, "Sid must be a string.")
    _check_condition_shape(statement.get("Condition", {}), kind)
    return statement


def listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def texts(value: object) -> list[str]:
    """Return a condition's values as strings. IAM also accepts numbers and Booleans without quotation marks."""
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in listed(value)]


_FIELDS = {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
_INVALID_JSON = {
    "trust": "This policy contains invalid Json",
    "resource": "Policies must be valid JSON and the first byte must be '{'",
    "identity": "Syntax errors in policy.",
    "boundary": "Syntax errors in policy.",
    "session": "The policy is not in the valid JSON format.",
    "service control": WRONG_POLICY_TYPE,
    "resource control": WRONG_POLICY_TYPE,
}


def _malformed(kind: Kind, message: str) -> MalformedPolicy:
    if kind in ORGANIZATION:
        return MalformedPolicy("MalformedPolicyDocumentException", WRONG_POLICY_TYPE)
    return MalformedPolicy("MalformedPolicy" if kind == "resource" else "MalformedPolicyDocument", message)


def _syntax(kind: Kind, message: str) -> MalformedPolicy:
    """Return the error for a syntax mistake.

    For policies other than trust and resource policies, IAM hides the message.
    """
    return _malformed(kind, message if kind in ("trust", "resource") else "Syntax errors in policy.")


def _object(pairs: list[tuple[str, object]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        # JSON doesn't define which of the two counts.
        raise ValueError("a key appears twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_top(document: dict[str, Any], kind: Kind) -> None:
    for field in document:
        if field not in ("Version", "Id", "Statement"):
            raise _syntax(kind, f"Unknown field {field}")
    check_version(document.get("Version", "2008-10-17"), kind)
    if kind in ORGANIZATION and document.get("Version") != "2012-10-17":
        raise _malformed(kind, "Missing required field Version")
    if not document.get("Statement"):
        raise _syntax(kind, "Missing required field Statement")


def _check_sids(statements: list[dict[str, Any]], kind: Kind) -> None:
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if kind != "resource" and not all(re.fullmatch(r"[0-9A-Za-z]*", sid) for sid in sids):
        raise _malformed(
            kind,
            "Statement IDs (SID) must be alpha-numeric. "
            "Check that your input satisfies the regular expression [0-9A-Za-z]*",
        )
    if len(set(sids)) != len(sids):
        raise _malformed(kind, "Statement IDs (SID) in a single policy must be unique.")


def _check_size(size: int, kind: Kind) -> None:
    refusals = {
        "trust": (2048, "LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 2048"),
        "boundary": (6144, "LimitExceeded", "Cannot exceed quota for PolicySize: 6144"),
        # IAM also limits the total size of a role's inline policies, which can't be checked here.
        "identity": (10240, "LimitExceeded", "Maximum policy size of 10240 bytes exceeded."),
        "session": (
            2048,
            "ValidationError",
            "1 validation error detected: Value at 'policy' failed to satisfy constraint: "
            "Member must have length less than or equal to 2048",
        ),
        "resource": (20480, "PolicyTooLarge", "Policy exceeds the maximum allowed document size."),
        # https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html
        "service control": (10240, "ConstraintViolationException", "You have exceeded the maximum policy size."),
        "resource control": (5120, "ConstraintViolationException", "You have exceeded the maximum policy size."),
    }
    limit, code, message = refusals[kind]
    if size > limit:
        raise MalformedPolicy(code, message)


def _check_principal_shape(statement: dict[str, Any], kind: Kind) -> None:
    if kind not in ("trust", "resource", "resource control"):
        if "Principal" in statement or "NotPrincipal" in statement:
            raise _malformed(kind, "Policy document should not specify a principal.")
        return
    if kind == "trust" and "NotPrincipal" in statement:
        raise _malformed(kind, "Has prohibited field NotPrincipal")
    if "NotPrincipal" in statement and statement["Effect"] == "Allow":
        raise _malformed(kind, "Allow with NotPrincipal is not allowed.")
    principal = statement.get("Principal", statement.get("NotPrincipal"))
    if not principal:
        raise _malformed(kind, "Missing required field Principal")
    if principal == "*":
        return
    if not isinstance(principal, dict):
        raise _malformed(kind, f'Invalid principal in policy: "AWS":{json.dumps(principal)[:200]}')
    for name, values in principal.items():
        if name not in ("AWS", "Federated", "Service", "CanonicalUser") or not _strings(values):
            raise _malformed(kind, f"Invalid principal in policy: {json.dumps({name: values})[1:-1][:200]}")


def _check_action_shape(statement: dict[str, Any], kind: Kind) -> None:
    if kind == "trust" and "Action" not in statement:
        raise _malformed(kind, "Missing required field Action")
    actions = statement.get("Action", statement.get("NotAction"))
    if actions is None or actions == []:
        missing = "Missing required field Action" if kind == "resource" else "Policy statement must contain actions."
        raise _malformed(kind, missing)
    if not _strings(actions):
        raise _syntax(kind, "Action must be a string or a list of strings.")


def _check_resource_shape(statement: dict[str, Any], kind: Kind) -> None:
    if kind == "trust":
        for field in ("Resource", "NotResource"):
            if field in statement:
                raise _malformed(kind, f"Has prohibited field {field}")
        return
    resources = statement.get("Resource", statement.get("NotResource"))
    if resources is None or resources == []:
        missing = (
            "Missing required field Resource" if kind == "resource" else "Policy statement must contain resources."
        )
        raise _malformed(kind, missing)
    if not _strings(resources):
        raise _syntax(kind, "Resource must be a string or a list of strings.")


def _check_condition_shape(condition: object, kind: Kind) -> None:
    if not isinstance(condition, dict):
        raise _syntax(kind, "Condition must be a JSON object.")
    for name, block in condition.items():
        if not isinstance(block, dict):
            raise _syntax(kind, f"Condition {name} must be a JSON object.")
        for key, values in block.items():
            if not all(isinstance(value, str | int | float) for value in listed(values)):
                raise _syntax(kind, f"The values of condition {key} must be strings.")


def _check_words(statement: dict[str, Any], kind: Kind) -> None:
    for action in listed(statement.get("Action", statement.get("NotAction"))):
        _check_action(action, kind)
    if kind == "resource control":
        _check_resource_control(statement)
    if kind in ("trust", "resource"):
        _check_principal(statement.get("Principal") or statement["NotPrincipal"], kind)
    if kind in ("identity", "boundary", "session", *ORGANIZATION):
        for resource in listed(statement.get("Resource", statement.get("NotResource"))):
            if not re.match(r"arn:|\*", resource):
                raise _malformed(kind, f'Resource {resource} must be in ARN format or "*".')
    for name, block in statement.get("Condition", {}).items():
        if not known_operator(name):
            raise _malformed(kind, f"Invalid Condition type : {name}" if kind == "resource" else _unknown(name, kind))
        for key in block:
            _check_condition_key(key, kind)


def _check_resource_control(statement: dict[str, Any]) -> None:
    actions = listed(statement.get("Action", []))
    services = {str(action).partition(":")[0].lower() for action in actions}
    # Only AWS's own resource control policy has an Allow statement.
    if statement["Effect"] != "Deny" or statement.get("Principal") != "*" or not services:
        raise _malformed("resource control", "Deny, Principal * and actions of named services are needed.")
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/access-analyzer-reference-policy-checks.html
    if others := services - RESOURCE_CONTROLLED:
        raise _malformed("resource control", f"Resource control policies don't support {', '.join(sorted(others))}.")


def _unknown(name: str, kind: Kind) -> str:
    return f"Unknown condition operator {name}" if kind == "trust" else "Syntax errors in policy."


def _check_action(action: str, kind: Kind) -> None:
    if kind == "trust":
        covers = wildcard(action.lower())
        if not action.lower().startswith("sts:") or not any(covers(known) for known in TRUST_ACTIONS):
            raise _malformed(kind, "AssumeRole policy may only specify STS AssumeRole actions.")
        return
    if action == "*":
        return
    vendor, *names = action.split(":")
    if not names:
        raise _malformed(kind, "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
    if len(names) > 1:
        raise _malformed(kind, "Actions/Condition can contain only one colon.")
    if not re.fullmatch(r"[a-zA-Z0-9-.]+", vendor):
        raise _malformed(kind, f"Vendor {vendor} is not valid")


def _check_condition_key(key: str, kind: Kind) -> None:
    colons = key.count(":")
    if not colons:
        raise _malformed(kind, "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
    # A tag's own key (aws:RequestTag/labkit:run), KMS's keys and an issuer with a port may have more colons.
    if colons > 1 and not re.match(r"[^:/]+:[^:/]+/|[^:/]+:[0-9]+:|kms:EncryptionContext:", key):
        raise _malformed(kind, "Condition can contain only one colon.")


def _check_principal(principal: str | dict[str, Any], kind: Kind) -> None:
    if isinstance(principal, str):
        if kind == "trust":
            raise _malformed(kind, 'AssumeRolepolicy contained an invalid principal: "STAR":"*".')
        return
    for name in listed(principal.get("Federated", [])):
        if not (_PROVIDER.fullmatch(name) or _DOMAIN.fullmatch(name)):
            raise _malformed(kind, "Federated principals must be valid domain names or SAML metadata ARNs")
    for name in listed(principal.get("AWS", [])):
        if not _AWS.fullmatch(name):
            raise _malformed(kind, f'Invalid principal in policy: "AWS":"{name}"')
    for name in listed(principal.get("Service", [])):
        if not _SERVICE.fullmatch(name):
            raise _malformed(kind, f'Invalid principal in policy: "SERVICE":"{name}"')


_PROVIDER = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(oidc|saml)-provider/\S+")
_DOMAIN = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
# IAM refuses every name that no service has. Here, only the form is checked.
_SERVICE = re.compile(r"([A-Za-z0-9-]+\.)+amazonaws\.com(\.cn)?")
_AWS = re.compile(
    r"\*|[0-9]{12}|A[A-Z0-9]{15,127}"
    r"|arn:aws[a-z-]*:iam::[0-9]{12}:(root|(user|role)/[\w+=,.@/-]+)"
    r"|arn:aws[a-z-]*:sts::[0-9]{12}:(assumed-role/[\w+=,.@-]+/[\w+=,.@-]+|federated-user/[\w+=,.@-]+)"
    r"|arn:aws[a-z-]*:iam::cloudfront:user/[\w .-]+"
)


def _strings(value: object) -> bool:
    return all(isinstance(item, str) for item in listed(value))
