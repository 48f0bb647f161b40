"""A trained model under other solvers: accuracy, crossings, fixed points, margins."""
