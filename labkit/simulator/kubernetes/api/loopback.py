"""The API server calls webhooks and nodes only at loopback addresses. This module refuses all other calls."""

from ipaddress import ip_address

from labkit.simulator.kubernetes.objects.status import quote


def refusal(host: str) -> str:
    """Return why the API server refuses to call this host; "" for a host on loopback."""
    try:
        inside = ip_address(host.strip("[]")).is_loopback
    except ValueError:
        inside = host.lower() == "localhost"
    return "" if inside else f"the lab's API server calls only loopback addresses, and {quote(host)} isn't one"
