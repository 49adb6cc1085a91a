"""The lab's costs: `make bench` measures them on this machine and prints them. Nothing here is a test."""
