"""Solve any vector field with explicit Runge-Kutta methods, in fixed or adaptive steps."""
