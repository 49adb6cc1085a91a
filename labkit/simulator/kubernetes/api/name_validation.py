"""Validate names, label keys, and the keys of ConfigMaps and Secrets. Return errors in the API server's words.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

import re

from labkit.simulator.kubernetes.objects.status import StatusCause, invalid_value

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    f" an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    f" end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"
)
KEY_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    f" character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{QUALIFIED}')"
)
VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
CONFIG_KEY = r"[-._a-zA-Z0-9]+"
CONFIG_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME', "
    f" or 'key-name', regex used for validation is '{CONFIG_KEY}')"
)


def label_name(field: str, value: str) -> list[StatusCause]:
    if len(value) > 63:
        return [too_long(field, value, 63)]
    return [] if re.fullmatch(LABEL, value) else [invalid_value(field, value, LABEL_TEXT)]


def too_long(field: str, value: str, limit: int) -> StatusCause:
    return StatusCause(field, f'Invalid value: "{value}": must be no more than {limit} bytes')


def subdomain_name(field: str, value: str) -> list[StatusCause]:
    if len(value) > 253:
        return [too_long(field, value, 253)]
    return [] if re.fullmatch(SUBDOMAIN, value) else [invalid_value(field, value, SUBDOMAIN_TEXT)]


def label_key(field: str, key: str) -> list[StatusCause]:
    prefix, slash, name = key.rpartition("/")
    if slash and not re.fullmatch(SUBDOMAIN, prefix):
        return [invalid_value(field, key, f"prefix part {SUBDOMAIN_TEXT}")]
    if not name:
        return [invalid_value(field, key, "name part must be non-empty")]
    if len(name) > 63:
        return [invalid_value(field, key, "name part must be no more than 63 bytes")]
    return [] if re.fullmatch(QUALIFIED, name) else [invalid_value(field, key, KEY_TEXT)]


def config_key(field: str, key: str) -> list[StatusCause]:
    """https://kubernetes.io/docs/concepts/configuration/configmap/#configmap-object"""
    causes = []
    if len(key) > 253:
        causes.append(too_long(field, key, 253))
    if not re.fullmatch(CONFIG_KEY, key):
        causes.append(invalid_value(field, key, CONFIG_KEY_TEXT))
    if key in (".", ".."):
        causes.append(invalid_value(field, key, f"must not be '{key}'"))
    elif key.startswith(".."):
        causes.append(invalid_value(field, key, "must not start with '..'"))
    return causes
