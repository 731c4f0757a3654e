"""How many ranks, how long and how much memory, before a job is sent.

`measurement` holds what a few real steps of a stage took; `measuring` takes them, with `candidates`, `sending`,
`memory` and `timing`. `network` has the formulas of an all-reduce, `spans` the rules by which stages end; `prediction`
puts them together with the planner's own steps, `plan` the stages; `advice` chooses a number of nodes, `tables` shows
it all.
"""
