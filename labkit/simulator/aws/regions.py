"""The regions that an account may use: those that are on by default, and the opt-in regions that it has enabled.

What differs from AWS:

- Regions that are off: STS refuses signed calls to such a region, but all other services answer.
- Time: a region is on or off at once; on AWS it takes minutes to hours.
- The Account Management API: it has only the operations on regions and, answered by moto, those on alternate contacts.

https://docs.aws.amazon.com/accounts/latest/reference/manage-acct-regions.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_enable-regions.html
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import boto3

from labkit.simulator.aws.actions.requests import require_emulated
from labkit.simulator.aws.answers import Refusal, ec2_answer, respond, xml
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import AwsRequest, Response
from labkit.simulator.aws.own_state import OwnState
from labkit.simulator.aws.sessions import Caller
from labkit.simulator.database import NotWritten

# Regions from before 20 March 2019, and later parts of them. All others have to be enabled.
BY_DEFAULT = frozenset((
    "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2",
    "ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1",
    "us-east-1", "us-east-2", "us-west-1", "us-west-2",
))  # fmt: skip
PART = "regions"  # of the lab's own state
OPERATIONS = ("DisableRegion", "EnableRegion", "GetRegionOptStatus", "ListRegions")
# EC2's words for the same statuses.
OPT_IN = {"ENABLED_BY_DEFAULT": "opt-in-not-required", "ENABLED": "opted-in", "DISABLED": "not-opted-in"}
MOST_LISTED = 50


class Regions:
    """The opt-in regions that each account has enabled, and the answers to API calls about regions."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self._enabled: dict[str, set[str]] = defaultdict(set)

    def keep(self, own: OwnState) -> None:
        """Store the enabled opt-in regions. If that fails, undo the changes since the last time; raise `NotWritten`."""
        try:
            own.keep_part(PART, {account_id: sorted(enabled) for account_id, enabled in self._enabled.items()})
        except NotWritten:
            self.put_back(own)
            raise

    def put_back(self, own: OwnState) -> None:
        """Replace the enabled opt-in regions with those that were stored last."""
        stored = own.part(PART, lambda stored: {account_id: set(enabled) for account_id, enabled in stored.items()})
        self._enabled = defaultdict(set, stored or {})

    def enable(self, account_id: str, region: str) -> None:
        """Enable a region in an account. On AWS, an administrator must do this before the region's first use."""
        self._enabled[account_id].add(region)

    def check(self, request: AwsRequest, caller: Caller) -> None:
        """Refuse a call to STS that is signed for a region which is off in the caller's account.

        AssumeRoleWithWebIdentity isn't checked: it isn't signed, so it doesn't name a region.
        """
        region = request.region
        if region not in BY_DEFAULT and region in regions() and region not in self._enabled[caller.account_id]:
            message = f"STS is not activated in this region for account:{caller.account_id}. "
            message += "Your account administrator can activate STS in this region using the IAM Console."
            raise Refusal(403, "RegionDisabledException", message)

    async def answer(self, request: AwsRequest) -> Response:
        """Answer a call of the Account Management API. moto answers the calls that aren't about regions.

        https://docs.aws.amazon.com/accounts/latest/reference/API_Operations.html
        """
        if request.operation not in OPERATIONS:
            return await self._backend.answer(request)
        parameters = require_emulated(request).parameters
        account_id = self._account(request, parameters)
        if request.operation == "ListRegions":
            return respond(self._list(account_id, parameters))
        region = parameters.get("RegionName")
        if region not in regions():
            raise Refusal(400, "ValidationException", f"The region {region} does not exist.")
        if request.operation == "GetRegionOptStatus":
            return respond({"RegionName": region, "RegionOptStatus": self._status(account_id, region)})
        if region in BY_DEFAULT:
            message = f"The region {region} is enabled by default, and can be neither enabled nor disabled."
            raise Refusal(400, "ValidationException", message)
        enabled = self._enabled[account_id]
        (enabled.add if request.operation == "EnableRegion" else enabled.discard)(region)
        return respond(None)

    def describe(self, request: AwsRequest) -> Response:
        """Answer ``ec2:DescribeRegions`` with the regions that are on.

        If the call names regions or has ``AllRegions``, the answer also has regions that are off.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeRegions.html
        """
        form = request.call.form
        names = [value for name, value in form.items() if re.fullmatch(r"RegionName\.\d+", name)]
        if unknown := sorted(set(names) - set(regions())):
            raise Refusal(400, "InvalidParameterValue", f"Invalid region names: {', '.join(unknown)}")
        every = form.get("AllRegions", "").lower() == "true"
        regions_shown = [
            {
                "regionEndpoint": f"ec2.{region}.amazonaws.com",
                "regionName": region,
                "optInStatus": OPT_IN[self._status(request.account_id, region)],
            }
            for region in names or regions()
        ]
        if not every and not names:
            regions_shown = [one for one in regions_shown if one["optInStatus"] != "not-opted-in"]
        for key, wanted in _filters(form):
            regions_shown = [one for one in regions_shown if any(fnmatchcase(one[key], pattern) for pattern in wanted)]
        items = "".join(xml({"item": one}) for one in regions_shown)
        return ec2_answer(request, f"<regionInfo>{items}</regionInfo>")

    def _account(self, request: AwsRequest, parameters: dict[str, Any]) -> str:
        named, own = parameters.get("AccountId"), request.account_id
        if named is None:
            return own
        if own != self._backend.account_id or named == own or not re.fullmatch(r"\d{12}", str(named), re.ASCII):
            message = f"Only the account {self._backend.account_id} may pass AccountId. It must be another account's"
            raise Refusal(400, "ValidationException", f"{message} id.")
        return str(named)

    def _status(self, account_id: str, region: str) -> str:
        if region in BY_DEFAULT:
            return "ENABLED_BY_DEFAULT"
        return "ENABLED" if region in self._enabled[account_id] else "DISABLED"

    def _list(self, account_id: str, parameters: dict[str, Any]) -> dict[str, Any]:
        wanted = parameters.get("RegionOptStatusContains")
        most, token = parameters.get("MaxResults", MOST_LISTED), parameters.get("NextToken", "")
        if not isinstance(most, int) or not 1 <= most <= MOST_LISTED:
            raise Refusal(400, "ValidationException", f"MaxResults must be from 1 to {MOST_LISTED}.")
        statuses = {region: self._status(account_id, region) for region in regions() if region > str(token)}
        matches = [
            {"RegionName": name, "RegionOptStatus": status}
            for name, status in statuses.items()
            if not wanted or status in wanted
        ]
        page = matches[:most]
        return {"Regions": page} | ({"NextToken": page[-1]["RegionName"]} if len(matches) > most else {})


@cache
def regions() -> tuple[str, ...]:
    """Return the regions of the partition `aws`. The lab's accounts can't enable a region of another partition."""
    return tuple(sorted(boto3.Session().get_available_regions("ec2")))


def _filters(form: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return, for each filter, a region field's name and the patterns for this field."""
    fields = {"endpoint": "regionEndpoint", "opt-in-status": "optInStatus", "region-name": "regionName"}
    filters = []
    for name, value in form.items():
        if numbered := re.fullmatch(r"Filter\.(\d+)\.Name", name):
            if value not in fields:
                raise Refusal(400, "InvalidParameterValue", f"The filter '{value}' is invalid")
            values = [v for n, v in form.items() if re.fullmatch(rf"Filter\.{numbered[1]}\.Value\.\d+", n)]
            filters.append((fields[value], values))
    return filters
