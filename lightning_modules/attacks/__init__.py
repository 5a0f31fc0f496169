"""Attacks: small callable objects from a network and images to adversarial images; alone uses cleverhans.

No figures, no files; and nothing of methods and synthesis, which are siblings.
"""
