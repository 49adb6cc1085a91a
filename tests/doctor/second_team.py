"""A second team that shares the run's role, OIDC provider, bucket and ConfigMaps.

A repair may neither take access from the team nor give it any. Only something that is broken for everybody, such as a
missing OIDC provider, may work again for everybody: the policies allowed that access all the time.
"""

import copy
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import jsonpatch

from labkit import documents
from labkit.cli import doctor_repair
from labkit.course.faults import Situation
from labkit.course.faults.situation import WEBHOOK, new_role
from labkit.policy import Policy, Principal, Request, evaluate, evaluate_trust
from labkit.simulator import object_selector
from tests.doctor.repairing import commands, repaired

Answers = dict[str, Any]
# It uses the run's role. The cluster has no such service account yet, so the doctor doesn't report it.
WEB = "system:serviceaccount:shop:web"
# A service account in the run's namespace, and its own role.
TILL, TILL_ROLE = "till", "till-role"
# A selector in the webhook's registration leaves out the team's pods with this label, on purpose.
KEPT_OUT = {"team": "b"}
REGISTERED = "get mutatingwebhookconfiguration pod-identity-webhook"
SUBJECTS = (
    WEB,
    f"system:serviceaccount:default:{TILL}",
    "system:serviceaccount:default:orders",
    "system:serviceaccount:staging:my-service-account",
    "system:serviceaccount:somewhere-else:somebody-else",
)
AUDIENCES = ("sts.amazonaws.com", "vault", "sts.us-east-1.amazonaws.com")
CONFIG_MAPS = ("my-settings", "my-aws-config", "my-token")
CHANGING = ("annotate", "create", "delete", "edit", "label", "patch", "rollout", "set")
AWS = ("aws ", "(export ", ")")


def joined(situation: Situation, *, in_one_statement: bool) -> Situation:
    """The situation with a second team, which the role admits in its first statement or in one of the team's own."""
    parameters = situation.parameters.model_copy(update={"service_account": TILL, "role_name": TILL_ROLE})
    arn = situation.role_arn.replace(situation.parameters.role_name, TILL_ROLE)
    roles = {**situation.roles, arn: new_role(parameters, situation.provider_arn)}
    if role := situation.role:
        roles[situation.role_arn] = {**role, "AssumeRolePolicyDocument": admitting(situation, in_one_statement)}
    account = documents.service_account(parameters, arn)
    namespace = account["metadata"]["namespace"]
    pods = {
        f"Pod default/{name}": _pod(name, namespace, labels)
        for name, labels in ((f"{TILL}-1", {}), (f"{TILL}-2", KEPT_OUT))
    }
    objects = {**situation.objects, f"ServiceAccount default/{TILL}": account, **pods}
    if registered := objects.get(WEBHOOK):
        objects[WEBHOOK] = keeping_out(registered)
    admitted = {**situation.admitted, **{key: pod["spec"] for key, pod in pods.items()}}
    return situation.model_copy(update={"roles": roles, "objects": objects, "admitted": admitted})


def harm(situation: Situation, answers: Answers, repair: str) -> list[str]:
    """The changes that a repair of these answers makes for anybody except the run's own service account."""
    # No shell runs a line with a placeholder.
    lines = [line for line in commands(repair) if not doctor_repair.PLACEHOLDER.search(line)]
    aws = [line for line in lines if line.startswith(AWS)]
    registered = answers.get(REGISTERED)
    values = [
        each for line in lines if not line.startswith(AWS) for each in _harm_in_cluster(situation, line, registered)
    ]
    if aws:
        after = repaired(answers, "\n".join(aws))
        values += _harm_in_aws(situation, answers, after)
    return [f"{each}, by\n{repair}" for each in values]


# The second team.


def keeping_out(registration: Any) -> Any:
    """The webhook's registration with a selector that leaves out pods with the label in `KEPT_OUT`."""
    changed = copy.deepcopy(registration)
    for webhook in changed["webhooks"]:
        selector = webhook.get("objectSelector") or {}
        mine = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in KEPT_OUT.items()]
        webhook["objectSelector"] = {**selector, "matchExpressions": [*selector.get("matchExpressions", []), *mine]}
    return changed


def admitting(situation: Situation, in_one_statement: bool) -> Any:
    """The role's trust policy, changed so that it admits the second team as well."""
    trust_policy = copy.deepcopy(situation.role["AssumeRolePolicyDocument"])
    statements = trust_policy["Statement"]
    key = f"{situation.provider_name}:sub"
    first = statements[0].get("Condition", {}).get("StringEquals", {})
    if "Federated" not in statements[0]["Principal"]:
        # No token gets this role, so the trust policy admits the second team by its account.
        principal = {"AWS": f"arn:aws:iam::{situation.account_id}:root"}
        statements.append({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"})
    elif in_one_statement and key in first:
        first[key] = [*([first[key]] if isinstance(first[key], str) else first[key]), WEB]
    else:
        statements.append(_of_its_own(situation, statements[0]))
    return trust_policy


def _of_its_own(situation: Situation, first: Any) -> Any:
    """A statement for the second team: correct if the first one names the run, else with the first one's mistakes."""
    statement = copy.deepcopy(first)
    if situation.parameters.subject in str(first) and situation.provider:
        statement = documents.trust_policy(situation.parameters, situation.provider_arn)["Statement"][0]
    blocks = statement.get("Condition", {})
    issuer = next((key.rpartition(":")[0] for block in blocks.values() for key in block), situation.provider_name)
    kept = {
        operator: {key: value for key, value in block.items() if not key.endswith(":sub")}
        for operator, block in blocks.items()
    }
    kept.setdefault("StringEquals", {})[f"{issuer}:sub"] = WEB
    return statement | {"Condition": {operator: block for operator, block in kept.items() if block}}


def _pod(name: str, namespace: str, labels: dict[str, str]) -> Any:
    container = {
        "name": "till",
        "image": "amazon/aws-cli",
        "envFrom": [{"configMapRef": {"name": name, "optional": True}} for name in CONFIG_MAPS],
        "volumeMounts": [],
    }
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    spec = {"serviceAccountName": TILL, "containers": [container], "volumes": []}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


# In the cluster: a line may only change the run's own objects.


def _harm_in_cluster(situation: Situation, line: str, registered: Any) -> Iterator[str]:
    words = shlex.split(line)
    if words[:2] == ["kubectl", "apply"] and words[-1].endswith("/webhook.json"):
        if registered:
            yield "the webhook is registered once more, and asks about pods that a selector kept out"
        return
    if words[:3] == ["kubectl", "patch", "mutatingwebhookconfiguration/pod-identity-webhook"]:
        before, after = (_asked(situation, each) for each in (registered, jsonpatch.apply_patch(registered, words[-1])))
        if before != after:
            yield f"the webhook's selectors are about pods of the second team: {before} before, {after} after"
        return
    if words[0] in ("echo", "printf"):
        manifest = json.loads(words[words.index("|") - 1])
        names = [(manifest["kind"].lower(), manifest["metadata"]["name"])]
    elif words[0] == "sleep" or line.startswith("labkit"):
        return
    elif (words[0] == "kubectl" and words[1] in CHANGING) or "replace" in words:
        named = [each.split("/") for each in words[2:] if re.fullmatch(r"[a-z]+/[a-z0-9.-]+", each)]
        names = [(kind, name) for kind, name in named] or [(words[2], words[3])]
    else:
        yield f"a line that nobody knows: {line}"
        return
    for kind, name in names:
        shared = {"configmap": CONFIG_MAPS, "namespace": ("default",)}.get(kind, ())
        if name.startswith(TILL) or name in shared:
            yield f"{kind} {name} is changed, which the second team has as well"


def _asked(situation: Situation, registration: Any) -> list[bool]:
    """Whether the webhooks' selectors match each pod of the second team's service account."""
    namespace = situation.objects.get("Namespace default", {}).get("metadata", {}).get("labels") or {}
    return [
        object_selector(webhook.get("objectSelector"))(labels)
        and object_selector(webhook.get("namespaceSelector"))(namespace)
        for webhook in registration["webhooks"]
        for labels in ({}, KEPT_OUT)
    ]


# In AWS.


def _harm_in_aws(situation: Situation, before: Answers, after: Answers) -> Iterator[str]:
    own = f"iam:GetRole {situation.parameters.role_name} ("
    for call in before.keys() | after.keys():
        one, other = before.get(call), after.get(call)
        if one == other:
            continue
        if call.startswith(own):
            provider = before.get(f"iam:GetOpenIDConnectProvider {situation.provider_name} ({situation.account_id})")
            audiences = provider["ClientIDList"] if provider else AUDIENCES
            yield from _harm_by_trust(situation, one, other, audiences)
        elif call.startswith("iam:GetOpenIDConnectProvider "):
            yield from _harm_to_provider(call, one or {}, other or {})
        elif call.startswith("iam:ListOpenIDConnectProviders"):
            yield from (f"{arn} is gone" for arn in one or [] if arn not in other)
        elif call.startswith("s3:GetBucketPolicy"):
            yield from _harm_by_bucket_policy(situation, one, other)
        elif _is_of_own_role(situation, call):
            if one is not None and _is_shared(situation, after):
                yield f"{call}: whoever else takes the role may do something else"
        else:
            yield f"{call} is changed"


def _harm_by_trust(situation: Situation, before: Any, after: Any, audiences: Sequence[str]) -> Iterator[str]:
    """The callers for which the role's trust policy now decides differently. A missing role admitted nobody."""
    one, other = (role["AssumeRolePolicyDocument"] if role else {"Statement": []} for role in (before, after))
    was, will_be = _policy(one), _policy(other)
    for arn, subject, audience in _tokens(situation, one, audiences):
        if _admits(was, arn, subject, audience) != _admits(will_be, arn, subject, audience):
            yield f"the trust policy decides otherwise on {subject} of {arn} for {audience}"
    named = [each for each in one["Statement"] if "Federated" not in each["Principal"]]
    lost = [each for each in named if each["Effect"] == "Allow" and each not in other["Statement"]]
    yield from (f"the trust policy forgets {each}" for each in lost)
    if {key: value for key, value in (before or {}).items() if key != "AssumeRolePolicyDocument"} != {
        key: value for key, value in (after or {}).items() if before and key != "AssumeRolePolicyDocument"
    }:
        yield "the role itself is changed"


def _tokens(
    situation: Situation, trust_policy: Any, audiences: Sequence[str] = AUDIENCES
) -> Iterator[tuple[str, str, str]]:
    """Everybody else's tokens: of the cluster's other service accounts, and of any in other clusters."""
    named = re.findall(r"arn:aws:iam::\d{12}:oidc-provider/[^\"]+", json.dumps(trust_policy))
    for arn in {*named, situation.provider_arn}:
        # With the cluster's own issuer, in any account, this subject is the run itself.
        mine = () if arn.endswith(f"/{situation.provider_name}") else (situation.parameters.subject,)
        for subject in (*SUBJECTS, *mine):
            for audience in audiences:
                yield arn, subject, audience


def _policy(trust_policy: Any) -> Policy:
    return Policy.read(trust_policy, kind="trust", name="role")


def _admits(policy: Policy, arn: str, subject: str, audience: str) -> bool:
    name = arn.partition(":oidc-provider/")[2]
    context = {f"{name}:sub": subject, f"{name}:aud": audience}
    return evaluate_trust(policy, provider_arn=arn, context=context).allowed


def _harm_to_provider(call: str, before: Any, after: Any) -> Iterator[str]:
    for key in ("ClientIDList", "ThumbprintList"):
        if gone := set(before.get(key, [])) - set(after.get(key, [])):
            yield f"{call}: {key} lacks {gone}"


def _harm_by_bucket_policy(situation: Situation, before: Any, after: Any) -> Iterator[str]:
    """The changes in the access of another role and of a user to the bucket."""
    account = situation.account_id
    session = f"arn:aws:sts::{account}:assumed-role/{TILL_ROLE}/session"
    who = {
        "the other role": Principal.role_session(session, situation.role_arn.replace("my-role", TILL_ROLE)),
        "a user": Principal.aws(f"arn:aws:iam::{account}:user/web"),
    }
    bucket = f"arn:aws:s3:::{situation.parameters.bucket}"
    everything = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    identity = [Policy.read(everything, kind="identity", name="everything")]
    for name, principal in who.items():
        for action, resource in (("s3:ListBucket", bucket), ("s3:GetObject", f"{bucket}/a"), ("s3:PutObject", bucket)):
            request = Request(principal, action, resource, {})
            decided = [
                evaluate(
                    request, identity=identity, resource=[Policy.read(json.loads(text), kind="resource", name="b")]
                )
                for text in (before, after)
                if text
            ]
            if len({each.outcome for each in decided}) > 1:
                yield f"the bucket policy decides otherwise on {name}: {action}"


def _is_of_own_role(situation: Situation, call: str) -> bool:
    return any(word in (situation.parameters.role_name, situation.role_arn) for word in call.split())


def _is_shared(situation: Situation, answers: Answers) -> bool:
    """Whether anybody else takes the role."""
    role = answers.get(f"iam:GetRole {situation.parameters.role_name} ({situation.account_id})")
    if not role:
        return False
    trust_policy = role["AssumeRolePolicyDocument"]
    policy = _policy(trust_policy)
    return any(_admits(policy, *token) for token in _tokens(situation, {})) or any(
        "Federated" not in str(each["Principal"]) for each in trust_policy["Statement"]
    )
