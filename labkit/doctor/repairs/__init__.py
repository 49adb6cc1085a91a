"""The repairs of findings, as lines for a shell.

Run `eval "$(labkit env)"` in the shell first. This package runs no lines.

A repair doesn't harm other service accounts. Its comments say what it changes, and who that affects.

`words` writes these comments, and the diff of a policy. `advice` is for cases in which every command could harm
someone. `commands` has the commands for AWS and for kubectl, and `pod_commands` the lines that replace a pod.
`manifest` restores a pod's original manifest, `policies` corrects the role's policies, and `registration` corrects the
webhook's registration. `repair` defines a repair, the order of repairs, and which parts a later repair can skip.
"""
