"""The decoders of protobuf and JSON bodies, which survive any input, and strategic merge patches."""

import contextlib
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, strategies

from labkit.simulator.kubernetes.api import protobuf
from labkit.simulator.kubernetes.api.patches import strategic_merge_patch
from labkit.simulator.kubernetes.objects import defaults, schema

# `kubectl create token app --audience sts.amazonaws.com --duration 10m`, as it goes over the wire.
SPEC = b"\x0a\x11sts.amazonaws.com\x20\xd8\x04"
TOKEN_REQUEST = b"\x0a\x00\x12" + bytes([len(SPEC)]) + SPEC + b"\x1a\x02\x0a\x00"
UNKNOWN = (
    b"\x0a\x28\x0a\x18authentication.k8s.io/v1\x12\x0cTokenRequest\x12" + bytes([len(TOKEN_REQUEST)]) + TOKEN_REQUEST
)


def test_kubectls_protobuf_token_request_is_decoded():
    version, kind, raw = protobuf.envelope(protobuf.MAGIC + UNKNOWN)
    assert (version, kind) == ("authentication.k8s.io/v1", "TokenRequest")
    spec = protobuf.decode("authentication.TokenRequest", raw)["spec"]
    assert spec == {"audiences": ["sts.amazonaws.com"], "expirationSeconds": 600}


def test_each_default_is_of_a_field_of_its_type():
    file = Path(defaults.__file__).with_name("defaults.toml")
    for group, types in tomllib.loads(file.read_text()).items():
        for name, values in types.items():
            assert set(values) <= set(schema.struct(f"{group}.{name}").fields), f"{file.name}: {group}.{name}"


@given(strategies.binary(max_size=200))
def test_any_bytes_decode_to_an_object_or_are_malformed(raw: bytes):
    with contextlib.suppress(protobuf.InvalidProtobuf):
        protobuf.envelope(protobuf.MAGIC + raw)
    for kind in ("core.Pod", "core.ConfigMap", "authorization.SubjectAccessReview"):
        try:
            made = protobuf.decode(kind, raw)
        except protobuf.InvalidProtobuf:
            continue
        assert isinstance(made, dict)


@given(
    strategies.recursive(
        strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(),
        lambda inner: (
            strategies.lists(inner)
            | strategies.dictionaries(
                strategies.sampled_from(["spec", "containers", "name", "metadata", "labels", "env"]), inner
            )
        ),
        max_leaves=20,
    )
)
def test_any_document_decodes_to_an_object_or_has_a_wrong_type(value: object):
    try:
        made, unknown = schema.decode("core.Pod", value)
    except schema.WrongType as error:
        assert str(error).startswith("json: cannot unmarshal")
    else:
        assert isinstance(made, dict)
        assert all(isinstance(path, str) for path in unknown)


def test_a_wrong_type_gets_gos_error_message():
    with pytest.raises(schema.WrongType) as caught:
        schema.decode("core.Pod", {"spec": {"containers": "none"}})
    assert str(caught.value) == (
        "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container"
    )


def test_strategic_merge_puts_new_list_items_before_existing_ones():
    old = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    new = {"status": {"conditions": [{"type": "PodScheduled", "status": "True"}]}}
    merged = strategic_merge_patch("core.Pod", old, new)
    assert [condition["type"] for condition in merged["status"]["conditions"]] == ["PodScheduled", "Ready"]


def test_strategic_merge_can_delete_and_replace_list_items():
    old = {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}
    deleted = strategic_merge_patch("core.Pod", old, {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}})
    assert deleted == {"spec": {"containers": [{"name": "b"}]}}
    replaced = strategic_merge_patch("core.Pod", old, {"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}})
    assert replaced == {"spec": {"containers": [{"name": "c"}]}}
