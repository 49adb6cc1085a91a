"""The IAM role: is it there, and is it this run's?"""

from datetime import UTC, datetime

from labkit.diagnosis.evidence import Evidence, NotRead
from labkit.diagnosis.evidence.pod_spec import AwsConfig
from labkit.diagnosis.evidence.trust import actions_of, principals_of
from labkit.diagnosis.finding import Finding
from labkit.diagnosis.findings import trust_writes
from labkit.diagnosis.repairs import pod_commands
from labkit.diagnosis.repairs.commands import Commands, annotate, patch_config_map
from labkit.policy.wildcards import wildcard

LEARN = "02-iam-role.ipynb"
# Seconds after which what was written in IAM is known everywhere.
SETTLED = 60
# The settings of a profile that assumes a role.
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
ASSUMING = (
    "role_arn",
    "source_profile",
    "credential_source",
    "role_session_name",
    "external_id",
    "duration_seconds",
    "mfa_serial",
)


def missing(evidence: Evidence) -> Finding | None:
    """No role of this name. STS does not say so: it answers as if the trust policy had refused."""
    if evidence.role is not None or trust_writes.was_refused(evidence):
        return None
    return Finding(
        id="role-missing",
        summary="The role does not exist.",
        expected=evidence.role_arn,
        found="no such role",
        source="iam:GetRole",
        repair=_another_role(evidence)
        or pod_commands.with_new_sessions(
            evidence, f"{Commands.of(evidence).create_role()}\n{Commands.of(evidence).attach_policy()}"
        ),
        learn=LEARN,
    )


def of_another_run(evidence: Evidence) -> Finding | None:
    """A role of this name bears another run's tag; the lab never takes one over."""
    owner = evidence.role_run
    if owner in (None, evidence.parameters.run) or not evidence.role_is_known:
        return None
    return Finding(
        id="role-belongs-to-another-run",
        summary=f"The role {evidence.parameters.role_name} was made by another run of the lab.",
        expected=f"labkit:run = {evidence.parameters.run}",
        found=f"labkit:run = {owner}",
        source="iam:GetRole, Tags",
        repair=f"# choose another role_name; this one shows whose it is:\n{Commands.of(evidence).list_role_tags()}",
        learn=LEARN,
    )


def assumes_itself(evidence: Evidence) -> Finding | None:
    """The application's AWS config has it assume the role that it has already, which the role does not let itself do.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
    """
    if evidence.role is None or evidence.pod_spec is None or _trusts_itself(evidence):
        return None
    for container in evidence.pod_spec.containers:
        for config in container.aws_configs:
            for name, settings in config.profiles.items():
                # With a token's file in it, the profile is the exchange itself.
                if settings.get("role_arn") == evidence.role_arn and "web_identity_token_file" not in settings:
                    return Finding(
                        id="role-assumes-itself",
                        summary="The container's AWS config has it assume the role that it has by its token already.",
                        expected=f"no role_arn in the profile {name}",
                        found=f"{config.path} in container {container.name}: role_arn = {evidence.role_arn}",
                        source=f"kubectl get configmap {config.config_map} -o yaml",
                        repair=_without_assuming(evidence, config, name),
                        learn=LEARN,
                    )
    return None


def too_new(evidence: Evidence) -> Finding | None:
    """STS refuses a role that admits the service account, and was made a moment ago: IAM needs some seconds.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency
    """
    if evidence.role is None or not evidence.trust.admits:
        return None
    made = str(evidence.role.get("CreateDate") or "")
    age = (datetime.now(UTC) - datetime.fromisoformat(made)).total_seconds() if made else SETTLED
    if age >= SETTLED:
        return None
    try:
        caller = evidence.caller
    except NotRead as unread:
        if unread.is_choice:
            raise
        return None
    if caller is None or caller.arn or not {"(AccessDenied)", "AssumeRoleWithWebIdentity"} <= {*caller.error.split()}:
        return None
    # Another role, or another service account's token, is refused at any age.
    if evidence.pod_role_arn != evidence.role_arn or not any(pod == evidence.pod for pod in evidence.pods):
        return None
    return Finding(
        id="role-too-new",
        summary="The role is right and was made a moment ago; STS does not know of it yet.",
        expected=f"a role that is older than {SETTLED} seconds",
        found=f"made at {made}; {caller.error}",
        source="iam:GetRole, CreateDate",
        repair="# wait a minute, and try again; a program tries again by itself, with growing pauses:\nsleep 60",
        learn=LEARN,
        severity="note",
    )


def _trusts_itself(evidence: Evidence) -> bool:
    return any(
        evidence.role_arn in principals_of(statement, "AWS")
        and any(wildcard(action.lower())("sts:assumerole") for action in actions_of(statement))
        for statement in evidence.trust.allows
    )


def _without_assuming(evidence: Evidence, config: AwsConfig, profile: str) -> str:
    """Lines that take the role out of a profile, and make the pod anew, which reads its config once."""
    kept, inside = [], False
    for line in evidence.pod_spec.config_map(config.config_map)[config.key].splitlines(keepends=True):
        if line.lstrip().startswith("["):
            inside = line.strip().strip("[]").removeprefix("profile ").strip() == profile
        if not (inside and line.partition("=")[0].strip() in ASSUMING):
            kept.append(line)
    patch = patch_config_map(evidence, config.config_map, {config.key: "".join(kept)})
    return f"{patch}\n{pod_commands.replaced(evidence)}"


def _another_role(evidence: Evidence) -> str:
    """Where the role was renamed: the annotation of the one role that admits the service account."""
    if evidence.role_is_known:
        return ""
    try:
        naming = [role for role in evidence.account.roles if _names(evidence, role["AssumeRolePolicyDocument"])]
    except NotRead:
        return ""
    if len(naming) != 1:
        return ""
    return f"{annotate(evidence, naming[0]['Arn'])}\n{pod_commands.replaced(evidence)}"


def _names(evidence: Evidence, trust: object) -> bool:
    """Whether a trust policy names exactly this service account of this cluster."""
    return f"'{evidence.subject}'" in str(trust) and evidence.provider_name in str(trust)
