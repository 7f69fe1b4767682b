"""Tools of the house: benches, the preload shim, set-up."""
