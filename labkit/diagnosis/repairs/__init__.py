"""What puts a finding right, as lines for a shell after `eval "$(labkit env)"`. Nothing here is run.

`commands` has the calls of AWS and kubectl, `pod_commands` the lines that make a pod again, `manifest` the manifest
that it was made from, `trust_documents` the trust policy as it should be.
"""
