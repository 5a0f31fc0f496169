"""One forward pass and its gradients, had cheaply and exactly, and what that takes of the device's memory.

Nothing here knows what a method makes of them.
"""
