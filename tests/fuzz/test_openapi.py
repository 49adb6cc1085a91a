"""Requests that the API server's OpenAPI documents allow, and others: no 5xx, and answers of the documented types."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import event, given
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from labkit.simulator.kubernetes.objects.kinds import BY_NAME
from tests.fuzz.conftest import cases
from tests.fuzz.test_api import Watched, watched
from tests.simulator.kubernetes.conftest import Cluster
from tests.simulator.kubernetes.test_api_any_input import DOCUMENTS, REAL_500

__all__ = ["watched"]

NAMESPACE = "fuzz"


@pytest.fixture(scope="module")
def operations(watched: tuple[Watched, httpx.Client]) -> list[Any]:
    """Every documented operation. Creates resources for the operations to find."""
    _, admin = watched
    for document in DOCUMENTS:
        if kind := BY_NAME.get(document["kind"]):
            where = f"/namespaces/{NAMESPACE}" if kind.namespaced else ""
            admin.post(f"{kind.path}{where}/{kind.plural}", json=document)
    found: list[Any] = []
    for entry in admin.get("/openapi/v3").json()["paths"].values():
        document = admin.get(entry["serverRelativeURL"]).json()
        for operation in (each for path in document["paths"].values() for each in path.values()):
            body = operation.get("requestBody", {}).get("content", {}) if isinstance(operation, dict) else {}
            if "*/*" in body:  # otherwise Schemathesis would send any content type
                body["application/json"] = body.pop("*/*")
        found += [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]
    return found


@pytest.fixture(scope="module")
def session(cluster: Cluster) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.cert = str(cluster.keep("admin", "system:masters"))
        yield session


@cases(60)
@given(data=st.data())
def test_the_api_server_answers_any_request_as_its_openapi_document_says(cluster, watched, operations, session, data):
    app, admin = watched
    operation = data.draw(st.sampled_from(operations))
    named = {
        each.name: NAMESPACE if each.name == "namespace" else data.draw(st.sampled_from("cdprsw"))
        for each in operation.path_parameters
    }
    case = data.draw(operation.as_strategy(data.draw(st.sampled_from(GenerationMode)), path_parameters=named))
    authority = cluster.folder / "authority.pem"
    authority.write_bytes(cluster.authority.certificate_pem)
    answer = case.call(base_url=str(admin.base_url).rstrip("/"), session=session, verify=str(authority))
    event(f"{operation.method} {answer.status_code}")
    if answer.status_code >= 500:
        assert any(words in answer.text for words in REAL_500), f"{case.as_curl_command()}: {answer.text}"
    else:
        case.validate_response(answer, checks=[content_type_conformance, response_schema_conformance])
    assert app.wrong == []
