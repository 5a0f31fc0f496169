"""Networks as the rest knows them: any module as one from pixels in [0, 1] to logits, its weights and its class names.

Nothing here knows gradients, methods or data sets.
"""
