"""Files of weights: what they hold, read without executing them, and how it gets into a module, checked.

Nothing here knows what a network is for.
"""
