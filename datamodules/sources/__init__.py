"""Where images, labels and boxes lie: folders, tar shards, annotations, ImageNet's facts.

Nothing here decodes an image.
"""
