"""Read a call's operation and parameters, using botocore's model of the service.

The parameters are then encoded again, into a new call for moto. So moto reads the same parameters as the lab.

https://smithy.io/2.0/aws/protocols/index.html
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from botocore.model import OperationNotFoundError
from botocore.serialize import create_serializer
from werkzeug.exceptions import HTTPException

from labkit.simulator.aws.answers import Refusal, not_emulated
from labkit.simulator.aws.backend import (
    OperationModel,
    RoutedRequest,
    ServiceModel,
    get_service_model,
    get_service_router,
    parse_parameters,
)
from labkit.simulator.aws.call import (
    QUEUE_PATH,
    Api,
    AwsRequest,
    Call,
    CannotDerive,
    ParsedRequest,
    no_number,
    protocol,
)

LABEL = re.compile(r"\\\{(\w+)(\\\+)?\\\}")
# A control character, invalid UTF-8 or encoding, nothing but spaces, an empty part, or a step to another folder.
NOT_IN_PATH = re.compile(r"[\0-\x1f\x7f-\x9f\ufffd]|%(?![0-9A-Fa-f]{2})|^\s*$|^/|//|/$|^\.\.?$")
FORM = "application/x-www-form-urlencoded"
MOST_VALUES = 20_000  # in a JSON body
KEPT = ("host", "content-type", "x-amz-target")
# The Python type of a JSON value, for each type of a shape in the model.
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "blob": (str,),
    "boolean": (bool,),
    "double": (int, float, str),
    "float": (int, float, str),
    "integer": (int, float),
    "list": (list,),
    "long": (int, float),
    "map": (dict,),
    "string": (str,),
    "structure": (dict,),
    "timestamp": (int, float, str),
}


def with_parameters(request: AwsRequest) -> AwsRequest:
    """Return ``request`` with the call's parameters in ``request``, or with an error in ``unread``.

    The error is ``CannotDerive`` if the lab can't read the call, and ``Refusal`` if AWS would refuse the call.
    """
    try:
        return replace(request, parsed=_parsed(request))
    except Exception as unread:
        # Code that needs the parameters raises this error. An administrator's call goes to moto, which refuses it.
        return replace(request, unread=unread)


def named(call: Call, api: Api) -> str:
    """Return the name of the call's operation. For S3 and unknown REST calls, return the method and the path."""
    match protocol(call, api):
        case "json":
            return call.headers.get("x-amz-target", "").rpartition(".")[2]
        case "query" | "ec2":
            return call.form.get("Action", "")
    route = _route(call, api.name) if api.is_rest else None
    return route[0] if route else f"{call.method} {call.path}"


def check_path(request: AwsRequest) -> None:
    """Raise `Refusal` if no operation of a REST service has the call's path, or if a name in the path is invalid.

    moto would decode the path, and find another operation or another name in it.
    """
    if not request.api.is_rest:
        return
    if (route := _route(request.call, request.service)) is None:
        raise _unknown(f"{request.call.method} {request.call.path}", "rest-json")
    for name, encoded in route[1].items():
        text = unquote(encoded)
        if NOT_IN_PATH.search(text) or ("%2F" in encoded.upper() and not text.startswith("arn:")):
            raise Refusal(400, request.api.invalid, f"The value of {name} is not valid.", f"{name} is {text!r}")


def require_emulated(request: AwsRequest) -> ParsedRequest:
    """Return the operation and its parameters. Raises ``Refusal`` if the lab can't read them."""
    try:
        return request.require_parsed()
    except (CannotDerive, LookupError) as unknown:
        raise not_emulated(request, str(unknown)) from unknown


def with_form(request: AwsRequest, form: Mapping[str, str]) -> AwsRequest:
    """Return the call as a POST of the query protocol, with ``form`` as its parameters."""
    headers = [header for header in request.call.header_list if header[0] != "content-type"]
    headers.append(("content-type", f"{FORM}; charset=utf-8"))
    call = replace(request.call, method="POST", query_string="", header_list=headers, body=urlencode(form).encode())
    return replace(request, call=call)


def required(request: ParsedRequest) -> list[str]:
    """Return the names of the parameters that the operation requires."""
    shape = get_service_model(request.service).operation_model(request.operation).input_shape
    return shape.required_members if shape else []


def _route(call: Call, service: str) -> tuple[str, dict[str, str]] | None:
    """Return the operation with the call's method and path, and the path's names, encoded. None: no such operation."""
    for method, path, query, name in _routes(service):
        if method == call.method and query.items() <= call.query.items() and (match := path.fullmatch(call.raw_path)):
            return name, match.groupdict()
    return None


@cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], dict[str, str], str]]:
    """Return the method, path, query and name of each operation. The most exact path and query come first."""
    model, routes = get_service_model(service), []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, query = http["requestUri"].partition("?")
        pattern = LABEL.sub(lambda label: f"(?P<{label[1]}>{'.+' if label[2] else '[^/]+'})", re.escape(path))
        routes.append((http["method"], re.compile(pattern), dict(parse_qsl(query, keep_blank_values=True)), name))
    return sorted(routes, key=lambda route: (route[1].groups, -len(route[1].pattern), -len(route[2])))


def _parsed(request: AwsRequest) -> ParsedRequest:
    call = request.call
    service = get_service_model(request.service)
    content_type = call.headers.get("content-type", "")
    spoken = str(service.protocol)
    if "smithy-protocol" in call.headers or "content-encoding" in call.headers:
        raise CannotDerive(f"{request.service} calls in this protocol")
    if spoken == "json" and "x-amz-target" not in call.headers and request.api.is_query_compatible:
        spoken = "query"
    try:
        match spoken:
            case "json":
                operation, parameters, moto_call = _json(request, service, content_type)
            case "query":
                operation, parameters, moto_call = _query(request, service, content_type)
            case "rest-json":
                operation, parameters, moto_call = _rest_json(request)
            case _:
                raise CannotDerive(f"{request.service} calls")
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        code = "ValidationError" if spoken == "query" else "SerializationException"
        raise Refusal(400, code, "The request could not be read", f"{type(error).__name__}: {error}") from error
    return ParsedRequest(request.service, operation, parameters, request.region, request.account_id, moto_call)


def _query(request: AwsRequest, service: ServiceModel, content_type: str) -> tuple[str, dict[str, Any], Call]:
    call = request.call
    queue = QUEUE_PATH.fullmatch(call.raw_path) if request.api.takes_queue_paths else None
    if call.raw_path != "/" and not queue:
        raise CannotDerive(f"{request.service} calls on {call.raw_path}")
    if call.body and not content_type.startswith(FORM):
        raise CannotDerive(f"{request.service} calls with a body that is not a form")
    call.body.decode()  # raises if the body isn't UTF-8: `form_pairs` would replace the invalid bytes
    pairs = [pair for pair in call.form_pairs if not pair[0].startswith("X-Amz-")]
    form = dict(pairs)
    if len(form) < len(pairs):
        raise CannotDerive(f"{request.service} calls with a parameter given twice")
    if form.get("Version") != service.api_version:
        raise CannotDerive(f"{request.service} calls of the version {form.get('Version')}")
    if queue:
        form.setdefault("QueueUrl", f"https://{call.headers.get('host')}/{queue[1]}")
    model = _operation(service, form.get("Action", ""), "query")
    parameters = parse_parameters("query", model, values=form)
    moto_call = _anew(request, urlencode(form).encode(), {"content-type": f"{FORM}; charset=utf-8"})
    return model.name, parameters, moto_call


def _json(request: AwsRequest, service: ServiceModel, content_type: str) -> tuple[str, dict[str, Any], Call]:
    call = request.call
    prefix, _, name = call.headers.get("x-amz-target", "").rpartition(".")
    queue = QUEUE_PATH.fullmatch(call.raw_path) if request.api.takes_queue_paths else None
    if prefix != service.metadata["targetPrefix"]:
        raise CannotDerive(f"{request.service} calls with the target {prefix or '(empty)'}")
    if call.method != "POST" or not content_type.startswith("application/x-amz-json-1."):
        raise CannotDerive(f"{request.service} calls in this protocol")
    unsigned = [name for name, _ in call.query_pairs if not name.startswith("X-Amz-")]
    if unsigned or (call.raw_path != "/" and not queue):
        raise CannotDerive(f"{request.service} calls on a path other than /, or with a query")
    model = _operation(service, name, "json")
    content = _modelled(model.input_shape, _json_object(call.body))
    if queue:
        content.setdefault("QueueUrl", f"https://{call.headers.get('host')}/{queue[1]}")
    body = json_text(content)
    parameters = parse_parameters("json", model, body=body)
    version = service.metadata["jsonVersion"]
    return model.name, parameters, _anew(request, body, {"content-type": f"application/x-amz-json-{version}"})


def _rest_json(request: AwsRequest) -> tuple[str, dict[str, Any], Call]:
    call = request.call
    query = urlencode([pair for pair in call.query_pairs if not pair[0].startswith("X-Amz-")])
    headers = {"content-type": call.headers["content-type"]} if "content-type" in call.headers else {}
    url = f"http://127.0.0.1{call.raw_path}?{query}"
    routed = RoutedRequest.from_primitives(call.method, url, headers, call.body)
    routed.environ["RAW_URI"] = call.raw_path
    try:
        model, uri = get_service_router(request.service).match(routed)
    except NotImplementedError as error:
        raise CannotDerive(f"{request.service} calls in this protocol") from error
    except HTTPException as error:
        raise _unknown(f"{call.method} {call.path}", "rest-json") from error
    if model.input_shape is None:
        raise CannotDerive(f"{request.service}:{model.name}")
    if len(dict(call.query_pairs)) < len(call.query_pairs) and not _takes_lists(model):
        raise CannotDerive(f"{request.service} calls with a parameter given twice")
    members = model.input_shape.members.items()
    elsewhere = {m.serialization.get("name", name) for name, m in members if "location" in m.serialization}
    body = {name: value for name, value in _json_object(call.body).items() if name not in elsewhere}
    content = _modelled(model.input_shape, body)
    parsed = parse_parameters(
        "rest-json", model, body=json_text(content), headers={}, values=routed.args, url_params=uri
    )
    parameters = {name: value for name, value in parsed.items() if value is not None}
    serializer = create_serializer("rest-json", include_validation=False)
    written = serializer.serialize_to_request(parameters, model)
    query = urlencode(written["query_string"], doseq=True, quote_via=quote)
    text = json_text(json.loads(written["body"])) if written["body"] else b""
    moto_call = _anew(request, text, {"content-type": "application/json"})
    return model.name, parameters, replace(moto_call, raw_path=written["url_path"], query_string=query)


def _operation(service: ServiceModel, name: str, protocol: str) -> OperationModel:
    try:
        model: OperationModel = service.operation_model(name)
    except OperationNotFoundError as error:
        raise _unknown(name, protocol, service.api_version) from error
    return model


def _unknown(name: str, protocol: str, version: str = "") -> Refusal:
    if protocol == "query":
        return Refusal(400, "InvalidAction", f"Could not find operation {name} for version {version}")
    return Refusal(404 if protocol == "rest-json" else 400, "UnknownOperationException", f"Unknown operation: {name}")


def _anew(request: AwsRequest, body: bytes, headers: dict[str, str]) -> Call:
    call = request.call
    kept = {name: value for name, value in call.headers.items() if name in KEPT} | headers
    path = "/" if request.api.takes_queue_paths else call.raw_path
    return replace(call, raw_path=path, query_string="", header_list=list(kept.items()), body=body)


def _json_object(body: bytes) -> dict[str, Any]:
    content = json.loads(body.decode() or "{}", object_pairs_hook=_once, parse_constant=no_number)
    if not isinstance(content, dict):
        raise TypeError("the body is not a JSON object")
    _count(content)
    return content


def _count(content: object) -> None:
    """Refuse content with so many values that reading them would take too long."""
    left, level = MOST_VALUES, [content]
    while level:
        left -= len(level)
        if left < 0:
            raise ValueError(f"the body has more than {MOST_VALUES} values")
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(content := dict(pairs)) < len(pairs):
        raise ValueError("a key appears twice")
    return content


def json_text(content: dict[str, object]) -> bytes:
    """Return ``content`` as JSON that moto can't mistake for the parameters of a form."""
    # moto looks for a form's parameters in any body, so no string may contain the characters that separate them.
    return json.dumps(content).replace("&", "\\u0026").encode()


def _modelled(shape: Any, value: Any) -> Any:
    """Return a JSON value without null fields and without fields that botocore's model lacks."""
    if shape is None:
        return {}
    kind: str = shape.type_name
    fits = isinstance(value, JSON_TYPES[kind])
    if not fits or (isinstance(value, bool) and kind != "boolean"):
        raise TypeError(f"{shape.name} is not of the type {kind}")
    match kind:
        case "structure" if not shape.is_document_type:
            members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
            return {
                name: _modelled(members[name], part)
                for name, part in value.items()
                if name in members and part is not None
            }
        case "list":
            return [_modelled(shape.member, part) for part in value]
        case "map":
            return {name: _modelled(shape.value, part) for name, part in value.items() if part is not None}
    return value


def _takes_lists(model: OperationModel) -> bool:
    members = model.input_shape.members.values()
    return any(m.serialization.get("location") == "querystring" and m.type_name == "list" for m in members)
