"""The way to STS: does the container ask the endpoint of a region that agrees with it, and is that region on?"""

from labkit.diagnosis import stages
from labkit.diagnosis.evidence import Evidence, kinds
from labkit.diagnosis.evidence.variables import endpoint_of_another_region, inactive_region
from labkit.diagnosis.finding import Symptom, cause
from labkit.diagnosis.findings.containers import in_variables, symptom

LEARN = "07-inside-the-exchange.ipynb"


sts_endpoint_of_another_region = in_variables(
    "pod-sts-endpoint-of-another-region",
    stages.EXCHANGE,
    endpoint_of_another_region,
    "The container asks the STS endpoint of another region than its own.",
    learn=LEARN,
)


@cause("region-not-activated", stages.EXCHANGE, LEARN, reads=(kinds.PODS,))
def region_not_activated(evidence: Evidence) -> Symptom | None:
    """The container's region is one that the account has not enabled: STS answers RegionDisabledException.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_enable-regions.html
    """
    return symptom(
        evidence,
        "The container's region is not one that the account has enabled.",
        inactive_region,
        source=f"{evidence.connection.kubectl} get pod -o yaml, spec.containers[].env; ec2:DescribeRegions",
    )
