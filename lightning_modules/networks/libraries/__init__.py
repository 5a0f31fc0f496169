"""The options that libraries have for their own networks: weights, normalization, sizes, classes.

Nothing here looks at a network.
"""
