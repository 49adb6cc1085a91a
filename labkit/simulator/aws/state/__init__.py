"""AWS's state, which survives the end of the lab's server: moto's state. The gate's own state is in `own_state`."""
