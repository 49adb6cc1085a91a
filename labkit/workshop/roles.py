"""Who may do what at the hub, on one machine and on a cluster."""

from labkit.workshop.settings import Workshop

ACTIVITY = ["list:users", "read:users:activity", "read:servers", "delete:servers"]


def roles(workshop: Workshop) -> dict[str, dict[str, object]]:
    """Return the roles by name. Nobody is an admin, who could open every server: a participant lets leaders in.

    https://jupyterhub.readthedocs.io/en/stable/reference/sharing.html
    """
    names = [f"read:users:name!user={leader}" for leader in workshop.leaders]
    own = ["users:activity!user", "access:servers!server", "shares!server"]
    return {
        "admin": {"users": []},
        "leader": {
            "scopes": [*ACTIVITY, "admin-ui", "read:users", "access:services!service=board"],
            "users": workshop.leaders,
        },
        "user": {"scopes": ["self", "shares!user", *names]},
        "server": {"scopes": [*own, *names]},
    }
