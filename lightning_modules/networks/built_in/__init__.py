"""Networks that have a name here, with their weights.

Whatever is made at an import path is no business of these files.
"""
