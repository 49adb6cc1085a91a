"""The permissions that CloudTrail's operations need.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_awscloudtrail.html
"""

from labkit.simulator.aws.actions.permission import CannotDerive, Permission
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import ParsedRequest

# No policy can limit these operations to a resource.
OPERATIONS = {"DescribeTrails", "ListTrails", "LookupEvents"}


def permissions(request: ParsedRequest, _: Backend) -> list[Permission]:
    """Return the permissions that an operation of CloudTrail needs."""
    if request.operation not in OPERATIONS:
        raise CannotDerive(f"cloudtrail:{request.operation}")
    return [Permission(f"cloudtrail:{request.operation}", "*", known=frozenset(), shown="")]
