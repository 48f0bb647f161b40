"""Check a model of your own: is it still an ODE?"""
