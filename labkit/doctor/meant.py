"""Find the service account that the user means, if they named only its namespace or a pod."""

from labkit.diagnosis.evidence import NotRead
from labkit.diagnosis.evidence.pod_spec import service_account_of
from labkit.doctor.survey import Survey
from labkit.errors import LabError
from labkit.run_parameters import Parameters

NO_CHOICE = "default"  # the service account of a pod that names none


def service_account(survey: Survey, parameters: Parameters, pod: str) -> str:
    """The name of the pod's service account, or of the only one in the namespace that should have a role.

    The lab's own service account wins if it exists, even without an annotation.

    Raises `LabError` if several may be meant, or none.
    """
    namespace, own = parameters.namespace, parameters.service_account
    if (of_pod := _of_pod(survey, namespace, pod)) not in ("", NO_CHOICE):
        return of_pod
    accounts = [each["metadata"]["name"] for each in survey.cluster.service_accounts(namespace)]
    candidates = {name for _, name in survey.subjects} | {own}.intersection(accounts)
    if parameters.is_usual and not candidates:
        return own
    if len(candidates) == 1:
        return candidates.pop()
    if candidates:
        raise LabError(
            f"{namespace}: {len(candidates)} service accounts may be meant: {', '.join(sorted(candidates))}.",
            where=f"the service accounts of the namespace {namespace} that should have a role",
            next=f"labkit doctor --all -n {namespace}   (each of them), or -s with the name of one",
        )
    others = sorted(set(accounts) - {NO_CHOICE})
    meant = others[0] if len(others) == 1 else "<SERVICE_ACCOUNT>"
    there = f"; there are {', '.join(others)}" if others else ""
    raise LabError(
        f"{namespace}: nothing tells which service account should have a role, no annotation and no pod{there}.",
        where=f"the service accounts of the namespace {namespace}, cluster {parameters.cluster}",
        next=f"labkit doctor -n {namespace} -s {meant}" if others else "kubectl get serviceaccounts --all-namespaces",
    )


def _of_pod(survey: Survey, namespace: str, pod: str) -> str:
    """The service account that the pod runs as; empty if the pod doesn't exist or can't be read."""
    try:
        found = survey.cluster.pod(namespace, pod) if pod else None
    except NotRead:
        return ""
    return service_account_of(found["spec"]) if found else ""
