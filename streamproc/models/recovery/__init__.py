"""How model text is read: a ladder of rungs, each of which says what it did, and none of which makes anything up.

`ladder` finds the JSON values in a text, however broken; `lists` reads numbered and marked lists, where there is no JSON.
`events` and `fields` make of them what a stage asked for; `labels` maps what a model calls a thing. All that is answered
stands in the text: a field that is missing stays missing, an object that was cut off is left out, and what cannot be read
is `unreadable`, never nothing. Knows no model, no task and no network.

No library for repairing JSON stands here: those that there are close what is open and complete what is missing.
"""
