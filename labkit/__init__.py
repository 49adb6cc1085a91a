"""labkit: what the notebooks of the IRSA lab stand on."""
