"""How many ranks, how long and how much memory, before a job is sent.

`measurement` holds what a few real steps took, `measuring` takes them, `network` has the formulas of an all-reduce,
`prediction` puts both together with the planner's own steps, `advice` chooses a number of nodes, `tables` shows it all.
"""
