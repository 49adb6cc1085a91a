"""Many runs at once: the fleet file, one row, a fleet with planted faults, and its report."""
