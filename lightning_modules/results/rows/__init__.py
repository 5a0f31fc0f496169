"""The rows of a run: what they say of an image, and the Parquet parts that they lie in.

Nothing here reduces them.
"""
