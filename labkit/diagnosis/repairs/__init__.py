"""The repairs of findings, as lines for a shell after `eval "$(labkit env)"`. Nothing here is run.

A repair takes nothing from anybody else, and gives them nothing. It first says what it changes, and for which owner.

`words` makes these, and a policy's diff; `advice` is all that there is where no command is harmless. `commands` has the
calls of AWS and kubectl, `pod_commands` the lines that make a pod again, `manifest` the manifest
that it was made from, `trust_documents` the trust policy as it should be. `repair` holds the lines, and says what they
do to other repairs: the order goes by that.
"""
