"""Find the service account that the user means if they named only a namespace or a pod."""

from labkit.doctor.evidence import NotRead
from labkit.doctor.evidence.pod_spec import service_account_of
from labkit.doctor.survey import Survey
from labkit.errors import LabError
from labkit.run_parameters import Parameters

NO_CHOICE = "default"  # the service account of a pod whose manifest names no service account


def service_account(survey: Survey, parameters: Parameters, pod: str) -> str:
    """Return the name of the service account that the user means.

    If the pod can be read, and the pod's service account isn't `default`, return the pod's service account. In all
    other cases, the candidates decide. Each surveyed service account is a candidate. The service account in
    `parameters` is a candidate too if it exists in the namespace.

    - One candidate: return its name.
    - No candidates, and `parameters.is_usual` is true: return the name in `parameters`.
    - Otherwise: raise `LabError`.
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
            f"{namespace}: the doctor cannot choose between {len(candidates)} service accounts: "
            f"{', '.join(sorted(candidates))}.",
            where=f"the service accounts of the namespace {namespace} that should have a role",
            next=f"name the right service account with -s, or examine all of them:  labkit doctor --all -n {namespace}",
        )
    others = sorted(set(accounts) - {NO_CHOICE})
    meant = others[0] if len(others) == 1 else "<SERVICE_ACCOUNT>"
    noun = "service account" if len(others) == 1 else "service accounts"
    there = f"; the namespace has the {noun} {', '.join(others)}" if others else ""
    raise LabError(
        f"{namespace}: neither an annotation nor a pod tells which service account should have a role{there}.",
        where=f"the service accounts of the namespace {namespace}, cluster {parameters.cluster}",
        next=f"labkit doctor -n {namespace} -s {meant}" if others else "kubectl get serviceaccounts --all-namespaces",
    )


def _of_pod(survey: Survey, namespace: str, pod: str) -> str:
    try:
        found = survey.cluster.pod(namespace, pod) if pod else None
    except NotRead:
        return ""
    return service_account_of(found["spec"]) if found else ""
