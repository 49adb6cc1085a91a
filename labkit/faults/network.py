"""Faults of where the pod looks for STS."""

from labkit.faults.fault import fault
from labkit.faults.situation import Situation


@fault(finding="pod-sts-endpoint-of-another-region", changes=("the pod's STS endpoint",), works=True)
def endpoint_of_another_region(situation: Situation) -> None:
    """The pod's manifest came from a cluster in another region."""
    other = "eu-west-1" if situation.parameters.region != "eu-west-1" else "us-east-1"
    situation.set_variable("AWS_ENDPOINT_URL_STS", f"https://sts.{other}.amazonaws.com")


@fault(finding="region-not-activated", changes=("the pod's region",), works=True)
def region_that_is_not_on(situation: Situation) -> None:
    """The pod was to store its data on another continent."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        situation.set_variable(name, "af-south-1")
