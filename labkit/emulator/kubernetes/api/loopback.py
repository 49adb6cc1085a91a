"""Refuse the API server's calls to addresses that aren't loopback addresses, such as a webhook's or a node's."""

from ipaddress import ip_address

from labkit.emulator.kubernetes.objects.status import quote


def refusal(host: str) -> str:
    """Return why the API server refuses to call this host; "" for a host on loopback."""
    try:
        inside = ip_address(host.strip("[]")).is_loopback
    except ValueError:
        inside = host.lower() == "localhost"
    return "" if inside else f"the lab's API server calls only loopback addresses, and {quote(host)} isn't one"
