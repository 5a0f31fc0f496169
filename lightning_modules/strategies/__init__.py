"""Which strategies a network uses over a whole data set: clusters of the maps that explain a class, by SpRAy.

Nothing here knows a Trainer or the command line.
"""
