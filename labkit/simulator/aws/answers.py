"""Build answers in AWS's JSON and XML formats, for the calls that the lab answers itself, without moto."""

import json
import re
import uuid
from typing import Any
from xml.sax.saxutils import escape

from labkit.simulator.aws.call import AwsRequest, Response

NAMESPACES = {
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sns": "http://sns.amazonaws.com/doc/2010-03-31/",
    "sqs": "http://queue.amazonaws.com/doc/2012-11-05/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}
PROLOG = '<?xml version="1.0" encoding="UTF-8"?>\n'

# https://www.w3.org/TR/xml/#charsets
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def respond(content: dict[str, Any] | None, content_type: str = "application/json") -> Response:
    """Return a JSON service's answer with this content. Without ``content``, the body is empty."""
    headers = [("content-type", content_type), ("x-amzn-requestid", str(uuid.uuid4()))]
    return Response(200, headers, b"" if content is None else json.dumps(content).encode())


def done(request: AwsRequest, result: str = "") -> Response:
    """Return the answer to a successful call of the query protocol. ``result`` is XML; it may be empty."""
    name, request_id = request.operation, str(uuid.uuid4())
    element = f"<{name}Result>{result}</{name}Result>" if result else ""
    body = (
        f'<{name}Response xmlns="{NAMESPACES[request.service]}">{element}'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}Response>"
    )
    return Response(200, [("content-type", "text/xml"), ("x-amzn-requestid", request_id)], body.encode())


def xml(content: object) -> str:
    """Return the content as the query protocol's XML. A dict becomes one element for each key, named like the key.

    The dict under the key `EvalDecisionDetails` is an exception. Each key of this dict becomes an element `entry`,
    which contains the key and the value.
    """
    if isinstance(content, dict):
        return "".join(
            f"<{name}>{_entries(part) if name == 'EvalDecisionDetails' else xml(part)}</{name}>"
            for name, part in content.items()
        )
    if isinstance(content, list):
        return "".join(f"<member>{xml(part)}</member>" for part in content)
    return str(content).lower() if isinstance(content, bool) else escape(NOT_XML.sub("?", str(content)))


def _entries(content: dict[str, str]) -> str:
    return "".join(xml({"entry": {"key": key, "value": value}}) for key, value in content.items())
