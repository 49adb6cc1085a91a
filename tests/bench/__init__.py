"""What the lab costs: `make bench` prints numbers measured on this machine, in this run. Nothing here is a test."""
