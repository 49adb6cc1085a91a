"""The way to STS: does the container ask the endpoint of a region that agrees with it, and is that region on?"""

import re
from typing import TYPE_CHECKING

from labkit.diagnosis.evidence.pod_spec import REGIONS, Container
from labkit.diagnosis.findings import Finding
from labkit.diagnosis.findings.containers import Wrong, finding

if TYPE_CHECKING:
    from labkit.diagnosis.evidence import Evidence

LEARN = "07-inside-the-exchange.ipynb"
ENDPOINTS = ("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL")
# https://docs.aws.amazon.com/general/latest/gr/sts.html
STS_HOST = re.compile(r"https?://sts(?:-fips)?(?:\.(?P<region>[a-z0-9-]+))?\.amazonaws\.com(?:\.cn)?(?:[:/].*)?")
GLOBAL_REGION = "us-east-1"
ON = ("opt-in-not-required", "opted-in")


def sts_endpoint_of_another_region(evidence: "Evidence") -> Finding | None:
    """STS is asked in one region by credentials that are signed for another: SignatureDoesNotMatch.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    return finding(
        evidence,
        "pod-sts-endpoint-of-another-region",
        "The container asks the STS endpoint of another region than its own.",
        _endpoint,
        learn=LEARN,
    )


def region_not_activated(evidence: "Evidence") -> Finding | None:
    """The container's region is one that the account has not enabled: STS answers RegionDisabledException.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_enable-regions.html
    """
    return finding(
        evidence,
        "region-not-activated",
        "The container's region is not one that the account has enabled.",
        _region,
        source=f"{evidence.connection.kubectl} get pod -o yaml, spec.containers[].env; ec2:DescribeRegions",
        learn=LEARN,
    )


CAUSES = (sts_endpoint_of_another_region, region_not_activated)


def _endpoint(evidence: "Evidence", container: Container) -> Wrong | None:
    variable = next((v for name in ENDPOINTS if (v := container.variable(name)) and v.value), None)
    host = STS_HOST.fullmatch(variable.value) if variable else None
    region = _region_of(container) or evidence.region
    if host is None or (host["region"] or GLOBAL_REGION) == region:
        return None
    return Wrong((variable,), f"https://sts.{region}.amazonaws.com, or no {variable.name}", f"{variable.value}")


def _region(evidence: "Evidence", container: Container) -> Wrong | None:
    region = _region_of(container)
    # The region in which the cluster runs is on.
    if not region or region == evidence.region:
        return None
    status = evidence.role_account.regions.get(region, "no such region")
    if status in ON:
        return None
    variables = tuple(variable for name in REGIONS if (variable := container.variable(name)))
    return Wrong(variables, evidence.region, f"{region}: {status}")


def _region_of(container: Container) -> str:
    return next(filter(None, map(container.value, REGIONS)), "")


CHECKS = (_endpoint, _region)
