"""The commands of repairs, for AWS and for kubectl, as lines for a shell.

Run `eval "$(labkit env)"` in the shell first.
"""

import json
import re
import shlex
from collections.abc import Container, Mapping
from dataclasses import replace
from itertools import chain, count
from typing import Any

from labkit import documents
from labkit.connection import ENTRANCE
from labkit.doctor.evidence import Evidence, known, workloads
from labkit.doctor.evidence.account import run_of
from labkit.doctor.evidence.reading import Document
from labkit.doctor.evidence.trust import Trust, account_of
from labkit.doctor.repairs import advice, patches, policies, words
from labkit.doctor.repairs.repair import Lines, Repair
from labkit.documents import POD_NAME, ROLE_ANNOTATION
from labkit.policy.arn import Arn
from labkit.policy.reference import has_action
from labkit.policy.written import listed

# The actions of each service. Their names differ from the names of API operations.
ACTIONS = (
    "https://docs.aws.amazon.com/service-authorization/latest/reference/"
    "reference_policies_actions-resources-contextkeys.html"
)
PRINCIPAL = "aws:PrincipalArn"
THUMBPRINTS = 5  # the most that one OIDC provider can have
# The placeholder for a role that nothing names.
ROLE_NAME = "<ROLE_NAME>"


class Commands:
    """The commands that repair the service account, role and pod in the evidence.

    The commands contain the correct documents.
    """

    def __init__(self, evidence: Evidence):
        parameters, connection = evidence.parameters, evidence.connection
        if evidence.expected.role_name:
            parameters = parameters.model_copy(update={"role_name": evidence.expected.role_name})
        self.parameters = parameters
        self.is_of_run = evidence.expected.belongs_to_run
        """Whether new resources belong to a run of the lab. If so, they get the run's tags and policy."""
        self._evidence = evidence
        self._kubectl = connection.kubectl
        self._provider = documents.provider(parameters, evidence.expected.issuer)
        self._trust_policy = documents.trust_policy(parameters, evidence.expected.provider_arn)
        self._role_arn = evidence.expected.role_arn
        if not self._role_arn and _is_run_of_lab(evidence):
            self._role_arn = connection.role_arn(parameters.role_name)
        self._service_account = documents.service_account(parameters, self._role_arn)
        self._pod = documents.pod(parameters, connection.image)
        self._pod["metadata"]["name"] = _name_of_new_pod(evidence)
        is_removed = self.is_of_run or connection.takes_untagged
        if not is_removed and known(lambda: evidence.aws.role_run) != parameters.run:
            # Resources that belong to no run aren't removed with a run.
            del self._service_account["metadata"]["labels"], self._pod["metadata"]["labels"]
        self._role_is_there = known(lambda: evidence.aws.role is not None, True)

    def create_provider(self) -> Lines:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/create-open-id-connect-provider.html"""
        audiences = " ".join(self._provider["ClientIDList"])
        lines = self._aws(
            words.said(
                f"This registers the issuer of the cluster {self.parameters.cluster} in IAM. Nobody loses access."
            ),
            f"aws iam create-open-id-connect-provider --url {self._provider['Url']} --client-id-list {audiences}"
            f"{self._tags()}",
        )
        return Lines(lines, creates=f"OIDC provider {self._provider['Url']}")

    def add_client_id(self, *, instead_of: str = "") -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/add-client-id-to-open-id-connect-provider.html"""
        audience = self._provider["ClientIDList"][0]
        lines = [
            words.said(f"This makes the OIDC provider also accept tokens for {audience}."),
            f"aws iam add-client-id-to-open-id-connect-provider "
            f"--open-id-connect-provider-arn {self._evidence.expected.provider_arn} --client-id {audience}",
        ]
        if instead_of:
            kept = f"The provider keeps the audience {json.dumps(instead_of)}. "
            lines.insert(1, words.said(f"{kept}Remove this audience by hand when no token has it."))
        return self._aws(*lines)

    def update_thumbprint(self, thumbprint: str) -> str:
        """Return lines that add a thumbprint to the provider.

        If the provider already has five thumbprints, AWS allows no more. The lines are then comments with advice.
        https://docs.aws.amazon.com/cli/latest/reference/iam/update-open-id-connect-provider-thumbprint.html
        """
        present = (self._evidence.aws.provider or {"ThumbprintList": []}).get("ThumbprintList") or []
        if len(present) >= THUMBPRINTS:
            return words.said(
                f"The OIDC provider has {len(present)} thumbprints, the most that AWS allows.",
                f"Find a thumbprint that no host uses any more. Replace that thumbprint with {thumbprint}.",
            )
        return self._aws(
            words.said("This adds a thumbprint to the OIDC provider. The other thumbprints stay."),
            "aws iam update-open-id-connect-provider-thumbprint "
            f"--open-id-connect-provider-arn {self._evidence.expected.provider_arn} "
            f"--thumbprint-list {' '.join([*present, thumbprint])}",
        )

    def create_role(self, trust_policy: Mapping[str, object] | None = None) -> Lines:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/create-role.html"""
        policy = trust_policy or self._trust_policy
        lines = self._aws(
            words.said(f"This creates the role {self.parameters.role_name}. Only {self._account} may assume it."),
            words.difference(None, policy),
            f"aws iam create-role --role-name {self._role}{self._path} "
            f"--assume-role-policy-document {_quoted(policy)}{self._tags()}",
        )
        return Lines(lines, creates=f"role {self.parameters.role_name}")

    def update_trust_policy(self, trust_policy: Document, *sentences: str) -> str:
        """Return lines that replace the trust policy.

        The lines begin with `sentences` as comments; by default, the comments say who keeps access.

        Return only advice if the new policy wouldn't admit the service account, or if IAM would reject it as too long.

        https://docs.aws.amazon.com/cli/latest/reference/iam/update-assume-role-policy.html
        """
        before = self._evidence.aws.trust
        after = replace(before, document=trust_policy)
        if not after.admits:
            return advice.restriction_stays(self._evidence)
        quota = advice.QUOTA if before.size <= advice.QUOTA else advice.LONGEST
        if after.size > max(quota, before.size):
            return advice.too_long(self._evidence, after.size, quota)
        return self._aws(
            words.said(*(sentences or self._admitted(before))),
            words.difference(before.document, trust_policy),
            f"aws iam update-assume-role-policy --role-name {self._role} --policy-document {_quoted(trust_policy)}",
        )

    def admit(self) -> str:
        """Return lines that add the service account to the role's trust policy.

        Return only advice if one of these is true:

        - The role may belong to someone else.
        - A restriction keeps the service account out. Examples are a condition on the IP address, and a condition that
          excludes the service account by name.
        - `update_trust_policy` returns only advice.
        """
        if self._evidence.aws.has_only_the_name:
            return advice.named_role_stays(self._evidence, self._role_arn)
        restricting = list(policies.restrictions(self._evidence))
        if restricting:
            return advice.restriction_stays(self._evidence, *restricting)
        return self.update_trust_policy(policies.corrected(self._evidence))

    def admit_or_create(self) -> Repair:
        """Return lines that add the service account to the role's trust policy.

        If the role doesn't exist, return lines that create the role and attach a policy to the role.
        """
        if self._role_is_there:
            return Repair.of(self.admit())
        return Repair.of(self.create_role(policies.alone(self._evidence)), self.attach_policy())

    def attach_policy(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/attach-role-policy.html"""
        is_of_run = known(lambda: self._evidence.aws.role_is_of_run, self.is_of_run)
        policy = shlex.quote(self.parameters.policy_arn) if is_of_run else "<POLICY_ARN>"
        line = f"aws iam attach-role-policy --role-name {self._role} --policy-arn {policy}"
        name = f"policy {Arn.parse(self.parameters.policy_arn).name}" if is_of_run else "policy that its pods need"
        return self._allow(f"This gives the role {self.parameters.role_name} the {name}.", line)

    def except_from_deny(self, name: str, before: Document, after: Document | None) -> str:
        """Return lines that replace the inline policy `before` with `after`, which no longer denies the action.

        Without `after`, the lines delete the policy: it denies nothing else, and allows nothing.

        https://docs.aws.amazon.com/cli/latest/reference/iam/put-role-policy.html
        https://docs.aws.amazon.com/cli/latest/reference/iam/delete-role-policy.html
        """
        expected = self._evidence.expected
        call = "delete-role-policy" if after is None else "put-role-policy"
        document = "" if after is None else f" --policy-document {_quoted(after)}"
        return self._allow(
            f"This excepts {expected.action} on {expected.resource} from the Deny in the inline policy "
            f"{name} of {self.parameters.role_name}.\n"
            "Everything else that the policy denies stays denied.\n"
            "Someone wrote the Deny on purpose: ask them first.",
            words.difference(before, after),
            f"aws iam {call} --role-name {self._role} --policy-name {shlex.quote(name)}{document}",
        )

    def permit_role(self, action: str, resource: str) -> str:
        """Return lines that add an inline policy for `action` on `resource`. The role's other policies are unchanged.

        https://docs.aws.amazon.com/cli/latest/reference/iam/put-role-policy.html
        """
        name = re.sub(r"[^A-Za-z0-9]+", "-", action).strip("-")
        taken = known(lambda: self._evidence.aws.inline_policies) or {}
        name = _free([name], name, taken)
        statement = {"Effect": "Allow", "Action": [action], "Resource": resource}
        document = {"Version": "2012-10-17", "Statement": [statement]}
        check = f"Check the spelling of {action} first: IAM accepts any name, even if no service has such an action.\n"
        return self._allow(
            ("" if has_action(action) else f"{check}  {ACTIONS}\n")
            + f"This allows the role {self.parameters.role_name} to do {action} on {resource}.",
            words.difference(None, document),
            f"aws iam put-role-policy --role-name {self._role} --policy-name {name} "
            f"--policy-document {_quoted(document)}",
        )

    def exempt_in_bucket_policy(self, bucket: str, policy: Document, denying: set[int]) -> str:
        """Return lines that exempt the role from the Deny statements at these positions in the bucket's policy.

        If the user named an action, only that action on its resource is exempt. If statements can't express that,
        return only advice.

        https://docs.aws.amazon.com/cli/latest/reference/s3api/put-bucket-policy.html
        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-principalarn
        """
        evidence, statements = self._evidence, list[Document]()
        for position, each in enumerate(listed(policy.get("Statement")), 1):
            if position not in denying:
                statements.append(each)
                continue
            statements.append({**policies.without(each, "ArnNotEquals", PRINCIPAL, evidence.expected.role_arn)})
            if evidence.expected.action:
                narrowed = self._of_role_in_bucket(each, bucket)
                if narrowed is None:
                    return advice.bucket_deny_stays(evidence, bucket)
                statements += narrowed
        after = {**policy, "Statement": statements}
        what = f" for {evidence.expected.action} on {evidence.expected.resource}" if evidence.expected.action else ""
        return self._allow(
            f"This exempts {self.parameters.role_name} from the Deny in the policy of the bucket {bucket}{what}.\n"
            "For everyone else, the Deny stays the same.\n"
            "Whoever owns the bucket wrote the Deny on purpose: ask them first.",
            words.difference(policy, after),
            f"aws s3api put-bucket-policy --bucket {bucket} --policy {_quoted(after)}",
            by_role_account=False,
        )

    def list_role_tags(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/list-role-tags.html"""
        return self._aws(f"aws iam list-role-tags --role-name {self._role}")

    def publish_issuer(self) -> str:
        """Return lines that let STS read the cluster's present issuer documents.

        These are the lines in the connection's `issuer_restored_by`. If that is empty, the lines copy the documents to
        the place that serves them, such as a bucket.
        """
        if self._evidence.connection.issuer_restored_by:
            return self._evidence.connection.issuer_restored_by
        comment = words.said(
            "STS reads the issuer's documents for every token of this issuer.",
            f"This copies the documents from the cluster {self.parameters.cluster} to the place that serves",
            f"{self._provider['Url']}, such as a bucket:",
        )
        return (
            f"{comment}\n"
            f"{self._kubectl} get --raw /.well-known/openid-configuration | "
            "aws s3 cp - s3://<BUCKET>/.well-known/openid-configuration --content-type application/json\n"
            f"{self._kubectl} get --raw /openid/v1/jwks | "
            f"aws s3 cp - s3://<BUCKET>{self._evidence.cluster.issuer.keys_path} --content-type application/json"
        )

    def create_service_account(self) -> str:
        """Return lines that create the service account.

        If the role is known, the new service account has the annotation that names the role. If not, a second command
        adds this annotation, and you fill in the role's name.
        """
        if self._role_arn:
            comment = words.said(
                f"This creates the service account {self._account} with the annotation that names its role."
            )
            return f"{comment}\n{applied(self._service_account, self._kubectl)}"
        metadata = {key: value for key, value in self._service_account["metadata"].items() if key != "annotations"}
        comment = words.said(f"This creates the service account {self._account} without a role.")
        manifest = applied({**self._service_account, "metadata": metadata}, self._kubectl)
        return f"{comment}\n{manifest}\n{annotate(self._evidence, '')}"

    def create_pod(self) -> Lines:
        """Return lines that apply the pod's manifest."""
        comment = words.said(f"This creates the pod {self._pod['metadata']['name']}. It runs as {self._account}.")
        return Lines(f"{comment}\n{applied(self._pod, self._kubectl)}", makes_pods=True)

    def restore_webhook(self) -> str:
        """Return lines that register the target's webhook again."""
        comment = words.said("This registers the webhook again. Pods that are made after that get their role.")
        return f"{comment}\n{self._evidence.connection.webhook_restored_by}"

    @property
    def _path(self) -> str:
        path = Arn.parse(self._role_arn).path if self._role_arn else "/"
        return f" --path {shlex.quote(path)}" if path != "/" else ""

    @property
    def _role(self) -> str:
        return shlex.quote(self.parameters.role_name)

    @property
    def _account(self) -> str:
        return account_of(self.parameters.subject)

    def _admitted(self, before: Trust) -> list[str]:
        """Return sentences about a repair that adds the service account to the trust policy `before`.

        The sentences name the callers that keep their access. If a Deny in `before` applies to the service account, the
        sentences also say that the repair exempts the service account from the Deny.
        """
        keep = "keeps its" if len(before.others) == 1 else "keep their"
        kept = f"{words.accounts(before.others)} {keep} access." if before.others else "The policy admits nobody else."
        sentences = [f"This adds {self._account} to the trust policy of {self.parameters.role_name}.", kept]
        if any(before.denies(statement) for statement in before.statements):
            sentences.append(f"This also exempts {self._account} from the Deny in the policy.")
            sentences.append("For everyone else, the Deny stays the same.")
            asking = "Someone wrote the Deny on purpose: ask them first. To find the author:"
            sentences.append(f"{asking}\n  {advice.who_wrote_trust()}")
        return sentences

    def _of_role_in_bucket(self, statement: Document, bucket: str) -> list[Document] | None:
        """Return the statements that deny the role what `statement` denies it, except the examined action.

        The statement has to apply to the role.
        """
        evidence, conditions = self._evidence, statement.get("Condition") or {}
        # The role meets this condition already, so no other value of it is needed.
        own = {
            **conditions,
            "ArnEquals": {**(conditions.get("ArnEquals") or {}), PRINCIPAL: evidence.expected.role_arn},
        }
        narrowed = {**{key: value for key, value in statement.items() if key != "Sid"}, "Condition": own}
        whole = policies.of_bucket(f"arn:{Arn.parse(evidence.expected.role_arn).partition}:s3:::{bucket}")
        return policies.excepting(narrowed, evidence.expected.action, evidence.expected.resource, whole=whole)

    def _allow(self, what: str, *lines: str, by_role_account: bool = True) -> str:
        """Return a repair that gives permissions to the role: the comment `what`, and below it `lines`.

        `lines` are commands, and comments such as the diff of a policy. If callers besides the examined service
        account may assume the role, all of `lines` become comments, and `by_role_account` has no effect. Otherwise,
        `by_role_account` says whether `lines` must run with credentials for the role's account. If the role doesn't
        exist or can't be read, it counts as a role without other callers.
        """
        others = known(lambda: self._evidence.aws.trust.others if self._evidence.aws.role else []) or []
        if others:
            comment = words.said(
                f"{words.accounts(others)} can use {self.parameters.role_name}, too, and would get new permissions.",
                f"Give {self._account} a role of its own, or ask the owner of this role to run the following:",
                what,
            )
            return f"{comment}\n{words.shown(*lines)}"
        comment = words.said(what, f"Only {self._account} uses this role.")
        return self._aws(comment, *lines) if by_role_account else "\n".join([comment, *lines])

    def _aws(self, *lines: str) -> str:
        """Return the lines as text, without the empty lines.

        If the examined role is in another account than the cluster, the text runs the lines in a subshell with
        credentials for the role's account.
        """
        account_id, lines = self._evidence.expected.role_account_id, tuple(filter(None, lines))
        if account_id == self._evidence.connection.account_id:
            return "\n".join(lines)
        role_arn = Arn.parse(self._evidence.expected.provider_arn).sibling(f"role/{ENTRANCE}")
        fields = ("AccessKeyId", "SecretAccessKey", "SessionToken")
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        pairs = ",".join(f"join('=',['{name}',{field}])" for name, field in zip(names, fields, strict=True))
        entered = (
            f"(export $(aws sts assume-role --role-arn {role_arn} --role-session-name labkit "
            f'--query "Credentials.[{pairs}]" --output text)'
        )
        return "\n".join([f"# in the account {account_id}:", entered, *lines, ")"])

    def _tags(self) -> str:
        if not self.is_of_run:
            return ""
        pairs = (f"Key={tag['Key']},Value={tag['Value']}" for tag in self.parameters.tags)
        return f" --tags {' '.join(shlex.quote(pair) for pair in pairs)}"


def annotate(evidence: Evidence, role_arn: str, *, without: str = "") -> str:
    """Return lines that annotate the service account with the role, and remove the annotation with the key `without`.

    If `role_arn` is empty, the lines first list the roles that may be meant, and the command has the placeholder
    `<ROLE_NAME>`.

    https://kubernetes.io/docs/reference/kubectl/generated/kubectl_annotate/
    """
    removed = f"{shlex.quote(without)}- " if without else ""
    command = (
        f"{evidence.connection.kubectl} annotate serviceaccount {evidence.parameters.service_account} "
        f"-n {evidence.parameters.namespace} --overwrite {removed}{ROLE_ANNOTATION}="
    )
    if role_arn:
        account, role = evidence.expected.account, Arn.parse(role_arn).name
        present = known(lambda: evidence.cluster.service_account)
        comment = words.said(
            f"This annotates the service account {account}. Pods that you create after that get the role {role}.",
            *words.managed(present["metadata"] if present else {}),
        )
        return f"{comment}\n{command}{shlex.quote(role_arn)}"
    return "\n".join([*_roles_to_choose_from(evidence), command + evidence.connection.role_arn(ROLE_NAME)])


def applied(manifest: Mapping[str, object], kubectl: str) -> str:
    """Return the line that applies the manifest in any shell.

    In zsh and many other shells, `echo` changes backslashes. So the line uses `printf` if the manifest has a backslash.

    https://pubs.opengroup.org/onlinepubs/9799919799/utilities/echo.html
    """
    document = _quoted(manifest)
    writing = "printf '%s\\n'" if "\\" in document else "echo"
    return f"{writing} {document} | {kubectl} apply -f -"


def patch_config_map(evidence: Evidence, name: str, data: dict[str, str | None]) -> str:
    """Return lines that set these keys of a ConfigMap, and delete the keys with None as their value.

    If pods of another service account may use the ConfigMap, return advice instead, without a command.

    https://kubernetes.io/docs/reference/kubectl/generated/kubectl_patch/
    """
    if users := workloads.other_users(evidence, name):
        return advice.config_map_stays(evidence, name, list(data), users)
    deleted = [key for key, value in data.items() if value is None]
    changed = [key for key in data if key not in deleted]
    comment = words.said(
        *([f"This deletes {_keys(deleted)} from the ConfigMap {name}."] if deleted else []),
        *([f"This changes {_keys(changed)} in the ConfigMap {name}."] if changed else []),
        advice.NO_OTHER_USER,
    )
    before = evidence.pod.spec.config_map(name) if evidence.pod.spec else {}
    operations = list[patches.Operation]()
    for key, value in data.items():
        path = f"/data/{patches.escaped(key)}"
        if value is None:
            # The old value isn't tested, since it may be a secret.
            operations.append({"op": "remove", "path": path})
        else:
            operations += [patches.tested(path, before.get(key)), {"op": "replace", "path": path, "value": value}]
    named = f"configmap {name} -n {evidence.parameters.namespace}"
    return f"{comment}\n{patches.patched(evidence.connection.kubectl, named, operations)}"


def _roles_to_choose_from(evidence: Evidence) -> list[str]:
    account = f"{evidence.parameters.namespace}/{evidence.parameters.service_account}"
    put = f"put the role's name in place of {ROLE_NAME}"
    # A role that admits by a pattern isn't proposed, though it may be the right one.
    candidates = known(lambda: evidence.expected.role_candidates or evidence.expected.roles_that_admit_it) or []
    if not candidates:
        return [f"# nothing says which role {account} should have: {put}"]
    return [f"# these roles may be meant for {account}; choose one, and {put}:", *(f"#   {arn}" for arn in candidates)]


def _keys(names: list[str]) -> str:
    return f"the keys {words.listed(names)}" if len(names) > 1 else f"the key {names[0]}"


def _is_run_of_lab(evidence: Evidence) -> bool:
    """Return whether a repair may use the role `parameters.role_name` when `evidence.expected.role_arn` is empty.

    The repair may use the role if the connection's `takes_untagged` and the parameters' `is_usual` are true, and no tag
    says that the role belongs to another run. The role needn't exist.
    """
    parameters = evidence.parameters
    if not evidence.connection.takes_untagged or not parameters.is_usual:
        return False
    role = known(lambda: evidence.aws.account.role(parameters.role_name))
    return run_of(role) in (None, parameters.run)


def _name_of_new_pod(evidence: Evidence) -> str:
    """Return the name of the examined pod. If no pod is found, return a name that no listed pod has."""
    pods = known(lambda: evidence.cluster.api.pods(evidence.parameters.namespace)) or []
    taken = {each["metadata"]["name"] for each in pods}
    own = f"{evidence.parameters.service_account}-pod"
    # Another account's repair may make a pod in the same namespace, too.
    is_of_lab = evidence.expected.belongs_to_run or evidence.parameters.is_usual
    free = _free([*([POD_NAME] if is_of_lab else []), own], own, taken)
    return known(lambda: evidence.pod.name, "") or free


def _free(names: list[str], base: str, taken: Container[str]) -> str:
    numbered = (f"{base}-{number}" for number in count(2))
    return next(name for name in chain(names, numbered) if name not in taken)


def _quoted(document: Mapping[str, Any]) -> str:
    return shlex.quote(json.dumps(document))
