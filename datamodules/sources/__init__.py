"""Where images and labels lie, and in which order they are read: folders, shards; and what images to make.

Nothing here decodes an image or knows how a worker dies: ``reading`` does.
"""
