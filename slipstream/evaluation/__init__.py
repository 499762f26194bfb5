"""`slipstream evaluate`: a model trained on the first part of a log, or a checkpoint, measured on the rest.

run      all of it, in order
served   the same targets, ranked by states that went the way of the product
"""
