"""Steps 6 to 10: an SDK exchanges the pod's token for the role's credentials. The lab builds nothing in these steps."""

TITLE = "the credentials in the pod"
