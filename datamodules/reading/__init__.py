"""From one file to one sample, or to a failure that names the file; and the worker processes that do it.

Nothing here knows how images and their labels are found.
"""
