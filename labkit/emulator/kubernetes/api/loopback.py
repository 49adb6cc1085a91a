"""Where the lab's API server may call: loopback alone, whatever a webhook or a node names as its address."""

from ipaddress import ip_address

from labkit.emulator.kubernetes.objects.status import quote


def refusal(host: str) -> str:
    """Why the API server does not call this host; empty for one on loopback."""
    try:
        inside = ip_address(host.strip("[]")).is_loopback
    except ValueError:
        inside = host.lower() == "localhost"
    return "" if inside else f"the lab's API server calls nothing but loopback: {quote(host)} is not on it"
