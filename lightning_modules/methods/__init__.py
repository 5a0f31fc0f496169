"""Attribution methods: small callable objects from a forward pass to maps.

No scores, no figures, no files; and nothing of attacks and synthesis, which are siblings.
"""
