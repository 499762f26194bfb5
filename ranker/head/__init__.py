"""The example ranker: what a candidate's crossing with its user's state is worth to a ranking model.

config      what a training is told
context     context features of candidates; no torch
requests    an event log as labelled requests
net         the head: MaskNet blocks under DCNv2 layers (arXiv 2412.01985)
model       head and PinFM as one: early fusion, late fusion, or none
training    trains both jointly
evaluate    AUC and HR@3 by time split
"""
