"""The example ranker: what a candidate's crossing with its user's state is worth to a ranking model.

config, context      what a training is told; context features of candidates (no torch in both)
places               where ids stand in an ascending column (no torch)
content              content embeddings of items
batch, requests      an event log as labelled requests
net, model           the head, MaskNet under DCNv2 (arXiv 2412.01985); head and PinFM as one
training, evaluate   joint training; AUC and HR@3 by time split
graph, saved, serve  the ranker as one ONNX graph, on disk, scoring requests (no torch in the three)
"""
