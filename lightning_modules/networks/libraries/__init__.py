"""What libraries say of their own networks: weights, normalization, sizes, classes.

Nothing here looks at a network.
"""
