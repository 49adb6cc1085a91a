"""Find out why a service account's pods don't get their role, and how to repair it.

`evidence` reads facts from AWS and Kubernetes, each fact once. `finding` defines a finding (one thing that is wrong)
and a cause (a possible reason, and the function that looks for it). `findings` contains the causes. `stages` lists the
stages of an examination. `order` sorts the findings. `repairs` writes the repair of a finding, as lines for a shell.
"""
