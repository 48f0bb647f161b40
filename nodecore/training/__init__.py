"""Train ensembles of Neural ODEs, with fixed, adaptive or adapted steps."""
