"""CloudTrail. The lab answers LookupEvents from its own trail, and moto answers the other operations.

What differs from AWS:

- Trails: CreateTrail and similar calls only store settings. The lab writes no file to a bucket and nothing to a log
  group, and GetTrailStatus shows no delivery.
- Delay: an event appears at once; on AWS it takes minutes.
- Insights: LookupEvents never finds insights.
- Resources: only events of DynamoDB, EKS, IAM, S3, Secrets Manager, SNS, SQS and STS name their resources.

https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
"""

import asyncio
import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from labkit.connection import Record
from labkit.policy.arn import Arn
from labkit.policy.reference import actions_on
from labkit.simulator.aws.answers import Refusal, respond
from labkit.simulator.aws.call import Api, AwsRequest, CannotDerive, ParsedRequest, Permission, Response
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Caller
from labkit.simulator.aws.trail import Trail

KEPT_SECONDS = 90 * 24 * 3600
MOST = 50
LONGEST_VALUE = 2000
ATTRIBUTES = (
    "AccessKeyId", "EventId", "EventName", "EventSource", "ReadOnly", "ResourceName", "ResourceType", "Username",
)  # fmt: skip
Event = dict[str, Any]


class CloudTrail(Service):
    """CloudTrail."""

    api = Api("cloudtrail", target="com.amazonaws.cloudtrail", is_checked=True)
    stores = ("cloudtrail",)

    def permissions(self, request: ParsedRequest) -> list[Permission]:
        """https://docs.aws.amazon.com/service-authorization/latest/reference/list_awscloudtrail.html"""
        if request.operation not in actions_on("cloudtrail", ""):
            raise CannotDerive(f"cloudtrail:{request.operation}")
        return [Permission(f"cloudtrail:{request.operation}", "*", known=frozenset(), shown="")]

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Answer a call of CloudTrail. LookupEvents only finds management events in the call's account and region."""
        if request.operation != "LookupEvents":
            response = await self.backend.answer(request)
            return _undelivered(response) if request.operation == "GetTrailStatus" else response
        try:
            parameters = request.parameters
        except CannotDerive as unknown:
            raise Refusal(400, "SerializationException", f"The lab cannot read {unknown}") from unknown
        # A day's trail can have 100,000 lines. Read them in a thread, so that other calls are answered meanwhile.
        content = await asyncio.to_thread(self._look_up, parameters, caller, request.region)
        return respond(content, "application/x-amz-json-1.1")

    def _look_up(self, parameters: dict[str, Any], caller: Caller, region: str) -> dict[str, Any]:
        most = parameters.get("MaxResults", MOST)
        if not 1 <= most <= MOST:
            raise _refusal("InvalidMaxResults", f"MaxResults is {most}. It must be from 1 to {MOST}.")
        begins, ends = self._range(parameters)
        key, value = _attribute(parameters)
        if (category := parameters.get("EventCategory")) not in (None, "insight"):
            raise _refusal("InvalidEventCategory", f"Unknown event category {category}. Use insight.")
        # The lab has no insights: they report unusual activity.
        events = self._events(key, value, caller.account_id, region) if category is None else iter(())
        events = (event for event in events if begins <= event["EventTime"] <= ends)
        query = {**parameters, "NextToken": None, "account": caller.account_id, "region": region}
        query_hash = hashlib.sha256(json.dumps(query, sort_keys=True, default=str).encode()).hexdigest()[:32]
        if token := parameters.get("NextToken"):
            events = _after(events, token, query_hash)
        page = [*islice(events, most + 1)]
        content: dict[str, Any] = {"Events": page[:most]}
        if len(page) > most:
            content["NextToken"] = base64.urlsafe_b64encode(f"{page[-2]['EventId']}/{query_hash}".encode()).decode()
        return content

    def _range(self, parameters: dict[str, Any]) -> tuple[float, float]:
        now = self.parts.clock.now()
        begins, ends = _seconds(parameters.get("StartTime")), _seconds(parameters.get("EndTime"))
        if begins is not None and ends is not None and begins > ends:
            raise _refusal("InvalidTimeRange", "The start time is after the end time.")
        # Go back at most as far as CloudTrail keeps events, and include the events of this second.
        return max(begins or 0, now - KEPT_SECONDS), now + 1 if ends is None else ends

    def _events(self, key: str, value: str, account_id: str, region: str) -> Iterator[Event]:
        # A look-up may name a resource by a part of the record's text, such as a role's name.
        in_record = "" if key in ("", "ReadOnly", "ResourceType") else value
        for record in Trail.newest(self.parts.trail_file, in_record):
            if not _is_in_history(record):
                continue
            if (record["recipientAccountId"], record["awsRegion"]) == (account_id, region):
                event = self._event(record)
                things = event["Resources"] if key in ("ResourceName", "ResourceType") else [event]
                if not key or any(thing.get(key) == value for thing in things):
                    yield event

    def _event(self, record: Record) -> Event:
        identity = record["userIdentity"]
        arn = Arn.find(identity.get("arn", ""))
        at = datetime.strptime(record["eventTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        event = {
            "EventId": record["eventID"],
            "EventName": record["eventName"],
            "ReadOnly": "true" if record["readOnly"] else "false",
            "AccessKeyId": identity.get("accessKeyId"),
            "EventTime": int(at.timestamp()),
            "EventSource": record["eventSource"],
            # For a role session, the session's name.
            "Username": identity.get("userName") or (arn.name if arn else None),
            "Resources": self._resources(record),
            "CloudTrailEvent": json.dumps({name: value for name, value in record.items() if name != "lab"}),
        }
        return {name: value for name, value in event.items() if value is not None}

    def _resources(self, record: Record) -> list[dict[str, str]]:
        service = record["eventSource"].partition(".")[0]
        parameters = record.get("requestParameters") or {}
        resources = [
            (kind, parameters[name])
            for name, kind in self.parts.resource_types.get(service, {}).items()
            if name in parameters
        ]
        resources += [
            (resource["type"], resource["ARN"]) for resource in record.get("resources", []) if "IAM" in resource["type"]
        ]
        if elements := record.get("responseElements"):
            resources += [
                ("AWS::IAM::AccessKey", elements["credentials"]["accessKeyId"]),
                ("AWS::STS::AssumedRole", elements["assumedRoleUser"]["assumedRoleId"]),
                ("AWS::STS::AssumedRole", elements["assumedRoleUser"]["arn"]),
            ]
        return [{"ResourceType": kind, "ResourceName": name} for kind, name in resources if isinstance(name, str)]


def _undelivered(response: Response) -> Response:
    """Return GetTrailStatus's answer without a delivery. moto always reports a delivery that has just happened."""
    if response.status == 200:
        content = json.loads(response.body)
        content.pop("LatestDeliveryTime", None)
        content["LatestDeliveryAttemptTime"] = ""
        response.body = json.dumps(content).encode()
    return response


def _is_in_history(record: Record) -> bool:
    """Whether the record is a management event of a caller with a valid signature or token."""
    identity = record.get("userIdentity") or {}
    return (
        bool(record.get("managementEvent"))
        and re.fullmatch(r"\w+", record["eventName"]) is not None
        and (bool(identity.get("accountId")) or bool(identity.get("userName")))
    )


def _attribute(parameters: dict[str, Any]) -> tuple[str, str]:
    attributes = parameters.get("LookupAttributes") or []
    if not attributes:
        return "", ""
    if len(attributes) > 1:
        raise _refusal("InvalidLookupAttributes", "A lookup can have only one attribute beside the time range.")
    key, value = attributes[0].get("AttributeKey"), attributes[0].get("AttributeValue")
    if key not in ATTRIBUTES:
        message = f"Unknown lookup attribute {key}. Use one of {', '.join(ATTRIBUTES)}."
        raise _refusal("InvalidLookupAttributes", message)
    if not value or len(value) > LONGEST_VALUE:
        raise _refusal("InvalidLookupAttributes", f"The value of {key} must have 1 to {LONGEST_VALUE} characters.")
    if key == "ReadOnly" and value not in ("true", "false"):
        raise _refusal("InvalidLookupAttributes", f"ReadOnly must be true or false, not {value}.")
    return key, value


def _after(events: Iterator[Event], token: str, query_hash: str) -> Iterator[Event]:
    """Return the events that follow the event that ``token`` names: the last event of the previous page.

    A page number wouldn't work, because new calls move events to other pages.
    """
    try:
        last, of = base64.urlsafe_b64decode(token.encode()).decode().split("/")
    except (binascii.Error, ValueError):
        raise _refusal("InvalidNextToken", "LookupEvents didn't return this token.") from None
    if of != query_hash:
        raise _refusal("InvalidNextToken", "The token comes from a lookup with other parameters.")
    for event in events:
        if event["EventId"] == last:
            return events
    raise _refusal("InvalidNextToken", "The event that the token names is no longer kept.")


def _seconds(moment: Any) -> float | None:
    return moment.replace(tzinfo=UTC).timestamp() if isinstance(moment, datetime) else moment


def _refusal(name: str, message: str) -> Refusal:
    return Refusal(400, f"{name}Exception", message)
