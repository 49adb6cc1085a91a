"""The repairs of findings, as lines for a shell after `eval "$(labkit env)"`. Nothing here is run.

A repair changes nothing for anybody else. It first says what it changes, and for which owner.

`words` writes these comments, and a policy's diff. `advice` is used where every command could harm somebody. `commands`
has the calls of AWS and kubectl, `pod_commands` the lines that replace a pod, `manifest` the pod's original manifest,
and `trust_documents` the repaired trust policy. `repair` has the lines, and their effects on other repairs, by which
repairs are ordered.
"""
