"""How well a model foresees what users do next, by protocols that leak nothing, beside what one would use instead.

protocol    which events are targets, and what may be trained on; the groups that they are told apart by
ranking     the rank of each target among all items
metrics     hit rate, NDCG and MRR, with intervals over users
states      the user embedding that is served after so many events
baselines   popularity and item-to-item transition counts
sasrec      SASRec, trained for as long as our model
freshness   what becomes of the hit rate when a state is behind
evaluate    all of these on one split
plot        the curve as a picture
"""
