"""The commands that repair: lines for a shell after `eval "$(labkit env)"`."""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from labkit import documents
from labkit.connection import ENTRANCE
from labkit.diagnosis.evidence import Evidence, NotRead
from labkit.diagnosis.evidence.account import run_of
from labkit.diagnosis.evidence.reading import Document
from labkit.documents import POD_NAME, ROLE_ANNOTATION

# What stands for a role that nothing names.
ROLE_NAME = "<ROLE_NAME>"


class Commands:
    """The commands for the service account, role and pod of some evidence, and the documents as they should be."""

    def __init__(self, evidence: Evidence):
        parameters, connection = evidence.parameters, evidence.connection
        if evidence.role_name:
            parameters = parameters.model_copy(update={"role_name": evidence.role_name})
        self.parameters = parameters
        self.is_of_run = evidence.role_is_known or evidence.is_of_lab
        """Whether it is a run of the lab: what is made carries its tags, and needs the parameters' policy."""
        self._evidence = evidence
        self._kubectl = connection.kubectl
        self._provider = documents.provider(parameters, evidence.issuer)
        self._trust_policy = documents.trust_policy(parameters, evidence.provider_arn)
        self._role_arn = evidence.role_arn
        if not self._role_arn and _is_run_of_lab(evidence):
            self._role_arn = connection.role_arn(parameters.role_name)
        self._service_account = documents.service_account(parameters, self._role_arn)
        self._pod = documents.pod(parameters, connection.image)
        self._pod["metadata"]["name"] = _name_of_new_pod(evidence)
        is_removed = self.is_of_run or connection.takes_untagged
        if not is_removed and _known(lambda: evidence.role_run, None) != parameters.run:
            # What belongs to no run is not removed with one either.
            del self._service_account["metadata"]["labels"], self._pod["metadata"]["labels"]
        self._role_is_there = _known(lambda: evidence.role is not None, True)

    def create_provider(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/create-open-id-connect-provider.html"""
        audiences = " ".join(self._provider["ClientIDList"])
        return self._aws(
            f"aws iam create-open-id-connect-provider --url {self._provider['Url']} --client-id-list {audiences}"
            f"{self._tags()}"
        )

    def delete_provider(self, arn: str) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/delete-open-id-connect-provider.html"""
        return self._aws(
            f"aws iam delete-open-id-connect-provider --open-id-connect-provider-arn {shell_text(arn)}",
            account_id=arn.split(":")[4],
        )

    def add_client_id(self, *, instead_of: str = "") -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/add-client-id-to-open-id-connect-provider.html"""
        audience = self._provider["ClientIDList"][0]
        lines = [self._client_id("add-client-id-to", audience)]
        if instead_of:
            lines.append(self._client_id("remove-client-id-from", instead_of))
        return self._aws(*lines)

    def update_thumbprint(self, thumbprint: str) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/update-open-id-connect-provider-thumbprint.html"""
        return self._aws(
            "aws iam update-open-id-connect-provider-thumbprint "
            f"--open-id-connect-provider-arn {self._evidence.provider_arn} --thumbprint-list {thumbprint}"
        )

    def disassociate_identity_provider_config(self, name: str) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/eks/disassociate-identity-provider-config.html"""
        return (
            f"aws eks disassociate-identity-provider-config --cluster-name {self.parameters.cluster} "
            f"--identity-provider-config type=oidc,name={name}"
        )

    def create_role(self, trust_policy: Mapping[str, Any] | None = None) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/create-role.html"""
        return self._aws(
            f"aws iam create-role --role-name {self._role}{self._path} "
            f"--assume-role-policy-document {_quoted(trust_policy or self._trust_policy)}{self._tags()}"
        )

    def update_trust_policy(self, trust_policy: Mapping[str, Any] | None = None) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/update-assume-role-policy.html"""
        return self._aws(
            f"aws iam update-assume-role-policy --role-name {self._role} "
            f"--policy-document {_quoted(trust_policy or self._trust_policy)}"
        )

    def write_trust_policy(self, trust_policy: Mapping[str, Any]) -> str:
        """The trust policy of the role, which is made where it is missing."""
        if self._role_is_there:
            return self.update_trust_policy(trust_policy)
        return f"{self.create_role(trust_policy)}\n{self.attach_policy()}"

    def attach_policy(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/attach-role-policy.html"""
        policy = shlex.quote(self.parameters.policy_arn)
        line = f"aws iam attach-role-policy --role-name {self._role} --policy-arn {policy}"
        return self._aws(line) if self.is_of_run else self._aws("# or the policy that the pod needs:", line)

    def detach_policy(self, arn: str) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/detach-role-policy.html"""
        return self._aws(f"aws iam detach-role-policy --role-name {self._role} --policy-arn {shlex.quote(arn)}")

    def delete_inline_policy(self, name: str) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/delete-role-policy.html"""
        return self._aws(f"aws iam delete-role-policy --role-name {self._role} --policy-name {shlex.quote(name)}")

    def put_inline_policy(self, name: str, document: Document) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/put-role-policy.html"""
        return self._aws(
            f"aws iam put-role-policy --role-name {self._role} --policy-name {shlex.quote(name)} "
            f"--policy-document {_quoted(document)}"
        )

    def permit_role(self, action: str, resource: str) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/put-role-policy.html"""
        statement = {"Effect": "Allow", "Action": [action], "Resource": resource}
        name = re.sub(r"[^A-Za-z0-9]+", "-", action).strip("-")
        return self.put_inline_policy(name, {"Version": "2012-10-17", "Statement": [statement]})

    def delete_boundary(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/delete-role-permissions-boundary.html"""
        return self._aws(f"aws iam delete-role-permissions-boundary --role-name {self._role}")

    def put_bucket_policy(self, bucket: str, policy: Document | None) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/s3api/put-bucket-policy.html"""
        if policy is None:
            return f"aws s3api delete-bucket-policy --bucket {bucket}"
        return f"aws s3api put-bucket-policy --bucket {bucket} --policy {_quoted(policy)}"

    def list_role_tags(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/list-role-tags.html"""
        return self._aws(f"aws iam list-role-tags --role-name {self._role}")

    def publish_issuer(self) -> str:
        """The issuer's documents, from the cluster to where it publishes them."""
        if self._evidence.connection.issuer_restored_by:
            return self._evidence.connection.issuer_restored_by
        return (
            f"# to the place that {self._provider['Url']} is served from, such as a bucket:\n"
            f"{self._kubectl} get --raw /.well-known/openid-configuration | "
            "aws s3 cp - s3://BUCKET/.well-known/openid-configuration --content-type application/json\n"
            f"{self._kubectl} get --raw /openid/v1/jwks | "
            f"aws s3 cp - s3://BUCKET{self._evidence.published.keys_path} --content-type application/json"
        )

    def create_service_account(self) -> str:
        """The manifest, applied; the annotation apart where nothing says which role it is."""
        if self._role_arn:
            return self._apply(self._service_account)
        metadata = {key: value for key, value in self._service_account["metadata"].items() if key != "annotations"}
        return f"{self._apply({**self._service_account, 'metadata': metadata})}\n{annotate(self._evidence, '')}"

    def create_pod(self) -> str:
        """The manifest, applied."""
        return self._apply(self._pod)

    def restore_webhook(self) -> str:
        """How the target gets its webhook back."""
        return self._evidence.connection.webhook_restored_by

    @property
    def _path(self) -> str:
        """The option that gives the role the path in the ARN by which it is wanted."""
        path = self._role_arn.partition(":role/")[2].rpartition("/")[0]
        return f" --path {shlex.quote(f'/{path}/')}" if path else ""

    @property
    def _role(self) -> str:
        return shlex.quote(self.parameters.role_name)

    def _client_id(self, operation: str, audience: str) -> str:
        return (
            f"aws iam {operation}-open-id-connect-provider "
            f"--open-id-connect-provider-arn {self._evidence.provider_arn} --client-id {shell_text(audience)}"
        )

    def _aws(self, *lines: str, account_id: str = "") -> str:
        """The lines, in a shell of the role's account where that is not the one whose credentials there are."""
        account_id = account_id or self._evidence.role_account_id
        if account_id == self._evidence.connection.account_id:
            return "\n".join(lines)
        role_arn = f"arn:{self._evidence.provider_arn.split(':')[1]}:iam::{account_id}:role/{ENTRANCE}"
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

    def _apply(self, manifest: Mapping[str, Any]) -> str:
        return f"echo {_quoted(manifest)} | {self._kubectl} apply -f -"


def annotate(evidence: Evidence, role_arn: str, *, without: str = "") -> str:
    """Names the role on the service account, and takes off the key `without`.

    Without a role's ARN, the lines before it list the roles that may be meant, and no shell runs the command as it is:
    `<` and `>` are the shell's own.

    https://kubernetes.io/docs/reference/kubectl/generated/kubectl_annotate/
    """
    removed = f"{shlex.quote(without)}- " if without else ""
    command = (
        f"{evidence.connection.kubectl} annotate serviceaccount {evidence.parameters.service_account} "
        f"-n {evidence.parameters.namespace} --overwrite {removed}{ROLE_ANNOTATION}="
    )
    if role_arn:
        return command + shlex.quote(role_arn)
    return "\n".join([*_roles_to_choose_from(evidence), command + evidence.connection.role_arn(ROLE_NAME)])


def patch_config_map(evidence: Evidence, name: str, data: dict[str, str | None]) -> str:
    """Sets these keys of a ConfigMap; None takes a key away.

    https://kubernetes.io/docs/reference/kubectl/generated/kubectl_patch/
    """
    return (
        f"{evidence.connection.kubectl} patch configmap {name} -n {evidence.parameters.namespace} --type=merge "
        f"-p {_quoted({'data': data})}"
    )


def _roles_to_choose_from(evidence: Evidence) -> list[str]:
    account = f"{evidence.parameters.namespace}/{evidence.parameters.service_account}"
    put = f"put its name in the place of {ROLE_NAME}"
    # One that admits whoever matches a pattern is not chosen, and may be meant all the same.
    candidates = _known(lambda: evidence.role_candidates or evidence.roles_that_admit_it, [])
    if not candidates:
        return [f"# nothing says which role {account} is to have: {put}"]
    return [f"# these roles may be meant for {account}; choose one, and {put}:", *(f"#   {arn}" for arn in candidates)]


def _is_run_of_lab(evidence: Evidence) -> bool:
    """Whether the parameters' role is meant where nothing else is said: the lab's own run, which names nothing."""
    parameters = evidence.parameters
    if not evidence.connection.takes_untagged or not parameters.is_usual:
        return False
    role = _known(lambda: evidence.account.role(parameters.role_name), None)
    return run_of(role) in (None, parameters.run)


def _name_of_new_pod(evidence: Evidence) -> str:
    """The name that was asked for; else the lab's, where no other pod has it."""
    pods = _known(lambda: evidence.cluster.pods(evidence.parameters.namespace), [])
    is_taken = any(each["metadata"]["name"] == POD_NAME for each in pods)
    free = f"{evidence.parameters.service_account}-pod" if is_taken else POD_NAME
    return _known(lambda: evidence.pod_name, "") or free


def _known(read: Callable[[], Any], otherwise: Any) -> Any:
    """What a command says of something that could not be read."""
    try:
        return read()
    except NotRead:
        return otherwise


def shell_text(text: str) -> str:
    """A word for a shell, in which what is invisible in print can be seen and copied."""
    if text.isascii() and text.isprintable():
        return shlex.quote(text)
    # Bytes, since what \\u stands for depends on the shell's locale.
    escaped = "".join(
        character if character.isascii() and character.isprintable() else _escaped(character)
        for character in text.replace("\\", "\\\\").replace("'", "\\'")
    )
    return f"$'{escaped}'"


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


def _quoted(document: Mapping[str, Any]) -> str:
    return shlex.quote(json.dumps(document))
